"""Writing tensors without replacing files."""

import os

import pytest
import torch

from mmattn.checkpoints import load_file, save_file


@pytest.mark.parametrize('name', ['a.pth', 'new/a.safetensors'])
def test_round_trip(tmp_path, name):
    state = {
        'a': torch.randn(2, 3).T,
        'b': torch.nn.Parameter(torch.ones(2, dtype=torch.float16)),
    }
    path = tmp_path / name
    save_file(state, path)
    result = load_file(path)
    assert result.keys() == state.keys()
    assert all(torch.equal(result[k], state[k]) for k in state)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    if path.suffix == '.pth':
        plain = torch.load(path, weights_only=True)
        assert all(type(value) is torch.Tensor for value in plain.values())


@pytest.mark.parametrize('name', ['a.pth', 'a.safetensors'])
def test_file_permissions(tmp_path, name):
    old = os.umask(0o022)
    try:
        save_file({'a': torch.ones(1)}, tmp_path / name)
    finally:
        os.umask(old)
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o644


def test_a_view_is_saved_without_its_storage(tmp_path):
    save_file({'a': torch.zeros(1_000_000)[:2]}, tmp_path / 'a.pth')
    assert (tmp_path / 'a.pth').stat().st_size < 10_000


def test_existing_files_are_kept(tmp_path):
    path = tmp_path / 'a.pth'
    path.write_text('mine')
    with pytest.raises(FileExistsError, match='--force'):
        save_file({'a': torch.ones(1)}, path)
    assert path.read_text() == 'mine'
    save_file({'a': torch.ones(1)}, path, force=True)
    assert load_file(path)['a'] == 1


def test_only_tensors(tmp_path):
    with pytest.raises(TypeError, match='epoch'):
        save_file({'a': torch.ones(1), 'epoch': 3}, tmp_path / 'a.pth')
    assert not list(tmp_path.iterdir())
