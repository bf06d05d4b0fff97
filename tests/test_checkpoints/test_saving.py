"""Written files hold tensors only and replace nothing unasked."""

import os

import pytest
import torch

from mmattn.checkpoints import load_file, save_file


@pytest.mark.parametrize('name', ['a.pth', 'new/a.safetensors'])
def test_what_is_written_is_read(tmp_path, name):
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
def test_others_may_read_it(tmp_path, name):
    old = os.umask(0o022)
    try:
        save_file({'a': torch.ones(1)}, tmp_path / name)
    finally:
        os.umask(old)
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o644


def test_a_view_is_written_without_what_is_behind_it(tmp_path):
    save_file({'a': torch.zeros(1_000_000)[:2]}, tmp_path / 'a.pth')
    assert (tmp_path / 'a.pth').stat().st_size < 10_000


def test_a_file_that_is_there_stays(tmp_path):
    path = tmp_path / 'a.pth'
    path.write_text('mine')
    message = r'expects a path to a new file, got .*a\.pth, which is there; c'
    with pytest.raises(FileExistsError, match=message):
        save_file({'a': torch.ones(1)}, path)
    assert path.read_text() == 'mine'
    save_file({'a': torch.ones(1)}, path, force=True)
    assert load_file(path)['a'] == 1


def test_only_tensors(tmp_path):
    message = r"save_file expects tensors only, got {'epoch': 'int'}"
    with pytest.raises(TypeError, match=message):
        save_file({'a': torch.ones(1), 'epoch': 3}, tmp_path / 'a.pth')
    assert not list(tmp_path.iterdir())
