"""tools/convert_checkpoint.py, as a user calls it."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmattn.backbones import BOATSwin
from mmattn.checkpoints import load_file

TOOL = Path(__file__).parents[2] / 'tools' / 'convert_checkpoint.py'


def run(*args):
    return subprocess.run(
        [sys.executable, str(TOOL), *map(str, args)],
        capture_output=True,
        text=True,
    )


@pytest.fixture
def official(tmp_path, golden_case):
    """A BOAT-Swin-T checkpoint in the published format."""
    entries = golden_case('boat_swin_tiny_224')['meta']['state_dict']
    state = {
        name: torch.full(shape, 0.01 * index)
        for index, (name, shape, _) in enumerate(entries)
    }
    torch.save(dict(model=state, epoch=300), tmp_path / 'official.pth')
    return tmp_path / 'official.pth', state


def test_mmpretrain_loads_the_converted_checkpoint(official, tmp_path):
    source, state = official
    out = tmp_path / 'out.pth'
    done = run(source, out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        'format    boat_swin',
        "backbone  mmattn.BOATSwin, arch='tiny', 217 tensors, 29,497,530 "
        'values',
        'head      fc.weight (1000, 768), fc.bias (1000,)',
        'added     6 (norm0.weight, norm0.bias, norm1.weight, norm1.bias, '
        'norm2.weight, norm2.bias)',
        'unused    0',
        f'wrote     {out}, 219 tensors',
    ]
    written = torch.load(out, weights_only=True)
    assert torch.equal(written['head.fc.weight'], state['head.weight'])
    registry = pytest.importorskip('mmpretrain.registry')
    import mmpretrain.models  # noqa: F401
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = registry.MODELS.build(
            dict(
                type='ImageClassifier',
                backbone=dict(
                    type='mmattn.BOATSwin', arch='tiny', out_indices=(3,)
                ),
                neck=dict(type='GlobalAveragePooling'),
                head=dict(
                    type='LinearClsHead', num_classes=1000, in_channels=768
                ),
            )
        )
    model.load_state_dict(written, strict=True)
    norm = model.backbone.norm3.weight
    assert torch.equal(norm, state['norm.weight'])


def test_backbone_only_and_converting_twice(official, tmp_path):
    source, _ = official
    out = tmp_path / 'out.safetensors'
    done = run(source, out, '--backbone-only', '--source', 'boat_swin')
    assert done.returncode == 0, done.stderr
    written = load_file(out)
    BOATSwin(arch='tiny').load_state_dict(written, strict=True)
    again = tmp_path / 'again.pth'
    done = run(out, again)
    assert done.returncode == 0, done.stderr
    assert 'format    mmattn\n' in done.stdout
    assert 'head      none\n' in done.stdout
    twice = load_file(again)
    assert {f'backbone.{name}' for name in written} == set(twice)


def test_existing_files_are_kept(tmp_path):
    source, out = tmp_path / 'source.pth', tmp_path / 'out.pth'
    torch.save(BOATSwin(arch='nano').state_dict(), source)
    out.write_text('mine')
    done = run(source, out)
    assert done.returncode == 2
    assert '--force' in done.stderr
    assert 'Traceback' not in done.stderr
    assert out.read_text() == 'mine'
    assert run(source, out, '--force').returncode == 0
    assert 'backbone.stem.proj.weight' in load_file(out)


def test_unknown_names(tmp_path):
    source, out = tmp_path / 'source.pth', tmp_path / 'out.pth'
    state = BOATSwin(arch='nano').state_dict() | {'extra.x': torch.ones(1)}
    torch.save(state, source)
    done = run(source, out)
    assert done.returncode == 2
    assert 'extra.x' in done.stderr
    assert not out.exists()
    done = run(source, out, '--skip-unknown')
    assert done.returncode == 0, done.stderr
    assert 'unused    1 (extra.x)' in done.stdout
    assert 'backbone.extra.x' not in load_file(out)


def test_an_incomplete_checkpoint(tmp_path):
    source, out = tmp_path / 'source.pth', tmp_path / 'out.pth'
    state = BOATSwin(arch='nano').state_dict()
    part = {k: v for k, v in state.items() if 'stages.1.blocks.0' not in k}
    torch.save(part, source)
    done = run(source, out)
    assert done.returncode == 2
    *_, line = done.stderr.splitlines()
    assert 'missing 1 (stages.1.blocks.0)' in line
    assert not out.exists()
    assert run(source, out, '--skip-unknown').returncode == 0
    assert load_file(out).keys() == {f'backbone.{name}' for name in part}


def test_an_unreadable_file(tmp_path):
    source = tmp_path / 'source.pth'
    source.write_text('not found')
    done = run(source, tmp_path / 'out.pth')
    assert done.returncode == 2
    assert done.stderr.startswith('convert_checkpoint.py: error: checkpoint ')
    assert 'Traceback' not in done.stderr
    assert not (tmp_path / 'out.pth').exists()


def test_hints_name_options_of_the_tool(tmp_path):
    state = BOATSwin('nano').state_dict()
    source, out = tmp_path / 'source.pth', tmp_path / 'out.pth'
    torch.save({f'net.{k}': v for k, v in state.items()}, source)
    done = run(source, out)
    assert done.returncode == 2
    assert '--prefix net.' in done.stderr and 'prefix=' not in done.stderr
    assert run(source, out, '--prefix', 'net').returncode == 0
    assert load_file(out).keys() >= {f'backbone.{name}' for name in state}
    torch.save(state | {'stem.x.y': torch.ones(1), 'z': torch.ones(1)}, source)
    done = run(source, out, '--force')
    assert '--skip-unknown' in done.stderr and 'strict' not in done.stderr
