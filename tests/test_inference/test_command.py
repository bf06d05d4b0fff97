"""``tools/test.py --optimize`` as a user types it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmattn.datasets import DigitSceneSpec, make_digit_folder
from mmattn.inference.kernels import LIBRARY

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / 'configs' / 'smt' / 'smt-nano_1xb32-25e_digits.py'


@pytest.mark.skipif(
    LIBRARY.why_not() is not None, reason=str(LIBRARY.why_not())
)
def test_command_tests_an_optimized_model(tmp_path):
    pytest.importorskip('mmpretrain')
    make_digit_folder(
        tmp_path / 'data' / 'digit_scenes',
        DigitSceneSpec(num_train=1, num_val=8),
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(Config.fromfile(CONFIG).model)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'model.pth')
    done = subprocess.run(
        [
            *(sys.executable, ROOT / 'tools' / 'test.py', CONFIG),
            *('model.pth', '--optimize'),
        ],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    output = done.stdout + done.stderr
    assert output.count('optimize_for_inference replaced 1 batch_norm') == 1
    assert 'accuracy/top1' in output
