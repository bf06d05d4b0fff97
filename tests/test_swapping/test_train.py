"""Swapped configs train with the tools of their codebase."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmattn.swapping import swap_backbone
from mmattn.swapping.source import config_root

OPTIONS = (
    'train_cfg.max_iters=1',
    'train_cfg.val_interval=2',
    'default_hooks.logger.interval=1',
    'train_dataloader.batch_size=2',
    'model.decode_head.norm_cfg.type=BN',  # SyncBN needs a GPU
    'model.auxiliary_head.norm_cfg.type=BN',
    *(
        f'{split}_dataloader.{option}'
        for split in ('train', 'val')
        for option in ('num_workers=0', 'persistent_workers=False')
    ),
)


def make_ade20k(folder: Path) -> None:
    """Write two random images with labels for each split."""
    generator = np.random.default_rng(0)
    for split in ('training', 'validation'):
        for kind, suffix, size in (
            ('images', 'jpg', (96, 128, 3)),
            ('annotations', 'png', (96, 128)),
        ):
            target = folder / kind / split
            target.mkdir(parents=True)
            for i in range(2):
                pixels = generator.integers(0, 151, size, np.uint8)
                Image.fromarray(pixels).save(target / f'{i}.{suffix}')


@pytest.mark.slow
def test_mmseg_trains_a_swapped_config(tmp_path):
    tool = config_root('mmseg').parent / 'tools' / 'train.py'
    make_ade20k(tmp_path / 'data' / 'ade' / 'ADEChallengeData2016')
    swap_backbone(
        'mmseg::upernet/upernet_r50_4xb4-80k_ade20k-512x512.py',
        'boat-swin-nano',
        out=tmp_path / 'swapped.py',
    )
    done = subprocess.run(
        [sys.executable, tool, 'swapped.py', '--cfg-options', *OPTIONS],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / 'work_dirs' / 'swapped' / 'iter_1.pth').is_file()
