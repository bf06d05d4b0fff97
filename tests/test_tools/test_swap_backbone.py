"""The command line of a swap."""

import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[2] / 'tools' / 'swap_backbone.py'


def run(tmp_path, *args):
    return subprocess.run(
        [sys.executable, str(TOOL), *map(str, args)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )


def test_swap_in_the_current_folder(tmp_path):
    done = run(
        tmp_path,
        'mmpretrain::resnet/resnet50_8xb32_in1k.py',
        '--backbone',
        'smt-nano',
    )
    assert done.returncode == 0, done.stderr
    assert 'wrote     smt-nano_8xb32_in1k.py' in done.stdout
    assert 'model.head.in_channels' in done.stdout
    text = (tmp_path / 'smt-nano_8xb32_in1k.py').read_text()
    assert "type='mmattn.SMT'" in text


def test_refusal_is_one_line_and_status_2(tmp_path):
    done = run(tmp_path, 'mmseg::unet/unet-s5-d16_fcn_4xb4-40k_hrf-256x256.py')
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        'swap_backbone.py: error: its backbone decodes'
    )
    assert list(tmp_path.iterdir()) == []


def test_source_and_coverage_exclude_each_other(tmp_path):
    done = run(tmp_path)
    assert done.returncode == 2
    assert 'expects SOURCE or --coverage HOST' in done.stderr
