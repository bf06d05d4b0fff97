"""Trainings continue from the newest checkpoint that can be read."""

import pytest
import torch
from mmengine.config import Config

from mmattn.cli.resume import find_newest, set_resume
from mmattn.errors import UsageError


def save(path, iteration, **changes):
    content = dict(
        meta=dict(epoch=iteration // 10, iter=iteration, seed=7),
        state_dict=dict(a=torch.ones(3)),
        message_hub=dict(log_scalars={}),
        optimizer=dict(state={}, param_groups=[]),
    )
    content |= changes
    torch.save({k: v for k, v in content.items() if v is not None}, path)
    return path


@pytest.fixture
def folder(tmp_path):
    """Checkpoints of iterations 10, 20 and 30, and the best one."""
    for iteration in (30, 10, 20):
        save(tmp_path / f'iter_{iteration}.pth', iteration)
    save(tmp_path / 'best_iter_30.pth', 31, optimizer=None)
    (tmp_path / 'last_checkpoint').write_text('iter_99.pth')  # is ignored
    return tmp_path


def test_the_newest(folder, capsys):
    found = find_newest([folder])
    assert found == (folder / 'iter_30.pth', 3, 30, 7)
    out = capsys.readouterr().out
    assert 'iter_30.pth (epoch 3, iteration 30)' in out and 'of 3' in out


@pytest.mark.parametrize('damage', ['truncate', 'flip', 'empty'])
def test_damaged_checkpoints_are_skipped(folder, damage, capsys):
    path = folder / 'iter_30.pth'
    content = bytearray(path.read_bytes())
    if damage == 'flip':
        content[content.index(b'\x00\x00\x80\x3f')] ^= 1  # in the weights
    path.write_bytes(
        dict(truncate=content[:-90], flip=content, empty=b'')[damage]
    )
    assert find_newest([folder]).path == folder / 'iter_20.pth'
    assert 'skipped: iter_30.pth' in capsys.readouterr().out


def test_no_checkpoint(tmp_path):
    with pytest.raises(UsageError, match='--start-if-none'):
        find_newest([tmp_path])
    assert find_newest([tmp_path], start_if_none=True) is None
    cfg = Config(dict(work_dir=str(tmp_path)))
    set_resume(cfg, 'auto', start_if_none=True)
    assert (cfg.resume, cfg.load_from) == (False, None)


@pytest.mark.parametrize(
    'missing', ['optimizer', 'message_hub', 'meta', 'state_dict']
)
def test_incomplete_checkpoints_are_for_load_from(tmp_path, missing):
    path = save(tmp_path / 'a.pth', 10, **{missing: None})
    cfg = Config(dict(work_dir=str(tmp_path)))
    with pytest.raises(UsageError, match=f'{missing}.*--load-from'):
        set_resume(cfg, str(path), start_if_none=False)


@pytest.mark.parametrize('meta', [[], dict(epoch='1', iter=2), dict(epoch=1)])
def test_meta_of_another_kind(tmp_path, meta):
    path = save(tmp_path / 'a.pth', 10, meta=meta)
    cfg = Config(dict(work_dir=str(tmp_path)))
    with pytest.raises(UsageError, match='meta'):
        set_resume(cfg, str(path), start_if_none=False)


def test_the_seed_and_the_folder_of_the_hook(tmp_path):
    work_dir = tmp_path / 'runs' / 'mine'
    other = tmp_path / 'elsewhere' / 'mine'
    for folder in (work_dir, other):
        folder.mkdir(parents=True)
    save(work_dir / 'iter_10.pth', 10)
    save(other / 'iter_20.pth', 20)
    hook = dict(type='CheckpointHook', out_dir=str(other.parent))
    cfg = Config(
        dict(
            work_dir=str(work_dir),
            default_hooks=dict(checkpoint=hook),
            randomness=dict(seed=1, deterministic=True),
        )
    )
    set_resume(cfg, 'auto', start_if_none=False)
    assert cfg.load_from == str(other / 'iter_20.pth')
    assert cfg.randomness == dict(seed=7, deterministic=True)
