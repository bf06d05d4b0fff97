import pytest
import torch

from mmattn.ops import (
    balanced_clusters,
    cluster_attention,
    list_implementations,
    window_attention,
)
from mmattn.ops.triton_kernels import table


def attend(dtype=torch.float32, channels=8):
    qkv = torch.zeros(1, 9, 3 * channels, dtype=dtype)
    order = torch.arange(9)[None, None]
    return cluster_attention(qkv, order, impl='triton')


@pytest.fixture
def on_this_machine(monkeypatch):
    """Pretend that Triton and a GPU are there; nothing is interpreted."""
    monkeypatch.setattr(table, '_HAS_TRITON', True)
    monkeypatch.setattr(table, '_HAS_CUSTOM_OPERATORS', True)
    monkeypatch.setattr(table, '_IS_INTERPRETED', False)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    return monkeypatch


def test_auto_never_takes_a_kernel_that_was_not_measured():
    best = {}
    for row in list_implementations():
        best.setdefault(row.operation, row.name)
    kernels = {
        row.operation for row in list_implementations() if row.name == 'triton'
    }
    assert kernels >= {
        'balanced_clusters',
        'cluster_attention',
        'mixed_convolution',
        'mixed_expansion',
        'window_attention',
    }
    assert 'triton' not in best.values()


def test_without_triton(on_this_machine):
    on_this_machine.setattr(table, '_HAS_TRITON', False)
    with pytest.raises(RuntimeError) as error:
        attend()
    assert str(error.value) == (
        "cluster_attention cannot run impl 'triton': it needs the package "
        "'triton', which is not installed"
    )


def test_without_custom_operators(on_this_machine):
    on_this_machine.setattr(table, '_HAS_CUSTOM_OPERATORS', False)
    with pytest.raises(RuntimeError) as error:
        attend()
    assert str(error.value) == (
        "cluster_attention cannot run impl 'triton': it needs custom "
        f'operators, of torch 2.4 or newer, got torch {torch.__version__}'
    )


def test_without_a_gpu(on_this_machine):
    on_this_machine.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(RuntimeError) as error:
        attend()
    assert str(error.value) == (
        "cluster_attention cannot run impl 'triton': it needs a CUDA device, "
        'torch sees none'
    )
    on_this_machine.setattr(table, '_IS_INTERPRETED', True)
    assert table.missing() is None


def test_on_the_cpu(on_this_machine):
    with pytest.raises(RuntimeError) as error:
        attend()
    assert str(error.value) == (
        "cluster_attention cannot run impl 'triton': it takes tensors on a "
        'CUDA device, got one on cpu'
    )


@pytest.mark.parametrize(
    'options, reason',
    [
        (
            {'dtype': torch.float64},
            'it takes float32, bfloat16 or float16, got torch.float64',
        ),
        (
            {'channels': 129},
            'it takes at most 128 channels of a head, got 129',
        ),
    ],
)
def test_what_kernels_do_not_take(on_this_machine, options, reason):
    on_this_machine.setattr(table, '_IS_INTERPRETED', True)
    with pytest.raises(RuntimeError) as error:
        attend(**options)
    assert str(error.value) == (
        f"cluster_attention cannot run impl 'triton': {reason}"
    )


@pytest.mark.parametrize(
    'window_size, channels, reason',
    [
        (9, 8, 'it takes windows of at most 64 tokens, got 9 x 9'),
        (
            7,
            65,
            'it takes at most 256 bytes of channels of a head, got 65 of '
            'torch.float32',
        ),
    ],
)
def test_windows_that_a_program_cannot_hold(
    on_this_machine, window_size, channels, reason
):
    on_this_machine.setattr(table, '_IS_INTERPRETED', True)
    qkv = torch.zeros(1, 9, 9, 3 * channels)
    with pytest.raises(RuntimeError) as error:
        window_attention(qkv, 1, window_size, impl='triton')
    assert str(error.value) == (
        f"window_attention cannot run impl 'triton': {reason}"
    )


def test_more_tokens_than_a_grid_holds(on_this_machine):
    on_this_machine.setattr(table, '_IS_INTERPRETED', True)
    features = torch.zeros(1, 1, 1).expand(1, 2**24 + 1, 1)
    with pytest.raises(RuntimeError) as error:
        balanced_clusters(features, impl='triton')
    assert str(error.value) == (
        "balanced_clusters cannot run impl 'triton': it takes at most "
        '16777216 tokens, got 16777217'
    )


def test_features_that_are_too_wide(on_this_machine):
    on_this_machine.setattr(table, '_IS_INTERPRETED', True)
    with pytest.raises(RuntimeError) as error:
        balanced_clusters(torch.zeros(1, 9, 257), impl='triton')
    assert str(error.value) == (
        "balanced_clusters cannot run impl 'triton': it takes features of at "
        'most 256 channels, got 257'
    )
