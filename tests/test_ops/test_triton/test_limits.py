"""What the Triton kernels cannot take, and that nobody gets them unasked."""

import pytest
import torch

from mmattn.ops import (
    _triton,
    balanced_clusters,
    cluster_attention,
    cross_shaped_attention,
    list_implementations,
    window_attention,
)
from mmattn.ops.dispatch import find_implementation


def why_not(operation, *args):
    return find_implementation(operation, 'triton').why_not(*args)


def test_auto_never_takes_a_kernel_that_was_not_timed():
    priorities = {}
    for x in list_implementations():
        priorities.setdefault(x.operation, {})[x.name] = x.priority
    kernels = [x for x in priorities.values() if 'triton' in x]
    assert len(kernels) == 5
    for known in kernels:
        assert known['triton'] < known['reference']


def test_without_a_gpu(monkeypatch):
    monkeypatch.setattr(_triton, 'HAS_TRITON', True)
    monkeypatch.setattr(_triton, 'IS_INTERPRETED', False)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert not _triton.is_available()
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert _triton.is_available()


@pytest.mark.skipif(_triton.IS_INTERPRETED, reason='takes tensors on a CPU')
def test_tensors_on_the_cpu():
    with pytest.raises(RuntimeError, match="'triton'.*runs on cuda"):
        window_attention(torch.zeros(1, 7, 7, 24), 1, 7, impl='triton')
    with pytest.raises(RuntimeError, match='cuda'):
        balanced_clusters(torch.zeros(1, 9, 4), impl='triton')
    qkv, order = torch.zeros(1, 9, 24), torch.arange(9)[None, None]
    with pytest.raises(RuntimeError, match='cuda'):
        cluster_attention(qkv, order, impl='triton')
    weight = torch.zeros(8, 1, 3, 3)
    with pytest.raises(RuntimeError, match='cuda'):
        cross_shaped_attention(qkv[None], 1, None, weight, impl='triton')


def test_without_triton(monkeypatch):
    monkeypatch.setattr(_triton, 'HAS_TRITON', False)
    assert not _triton.is_available()
    assert "'triton'" in _triton.why_not(torch.zeros(1))


@pytest.mark.skipif(not _triton.HAS_TRITON, reason='Triton is not installed')
@pytest.mark.parametrize(
    'operation, args, reason',
    [
        ('window_attention', ((1, 9, 9, 24), 1, 9, 0, None, 1.0), '64 tokens'),
        ('window_attention', ((1, 7, 7, 195), 1, 7, 0, None, 1.0), '256 byte'),
        ('window_attention', ((1, 7, 7, 96), 1, 7, 0, None, 1.0), None),
        ('cluster_attention', ((1, 9, 387), (1, 1, 9), 49, 20, 1.0), '128'),
        ('cluster_attention', ((1, 9, 384), (1, 1, 9), 49, 20, 1.0), None),
        ('cross_shaped_attention', ((1, 3, 3, 387), 1, None), '128 channels'),
        ('balanced_clusters', ((1, 9, 257), 49, 2, 100.0), '256 channels'),
        ('balanced_clusters', ((1, 2**24 + 1, 0), 49, 2, 100.0), '16777216'),
        ('balanced_clusters', ((1, 9, 256), 49, 2, 100.0), None),
    ],
)
def test_limits(operation, args, reason):
    args = [torch.zeros(x) if isinstance(x, tuple) else x for x in args]
    found = why_not(operation, *args)
    assert found is None if reason is None else reason in found
    args[0] = args[0].double()
    if reason is None:
        assert 'bfloat16' in why_not(operation, *args)
