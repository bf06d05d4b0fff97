"""Calling compiled functions, and doing without."""

import ctypes

import pytest
import torch

from mmattn.ops import (
    _native,
    balanced_clusters,
    reference_only,
    window_attention,
)
from mmattn.ops._native import Library, library, why_not_tensors


@pytest.fixture
def kernels(monkeypatch, cache):
    """The kernels of the operations, as in a new process."""
    new = Library('ops', _native.KERNELS.folder)
    monkeypatch.setattr(_native, 'KERNELS', new)
    return new


@pytest.fixture
def warnings_of(caplog):
    """What a call warns of."""

    def listen(call, *args, **options):
        caplog.clear()
        call(*args, **options)
        return [r.getMessage() for r in caplog.records]

    return listen


def test_a_failure_is_warned_of_once(kernels, compiler_script, warnings_of):
    compiler_script('echo broken >&2; exit 1')
    qkv = torch.randn(1, 4, 4, 12)
    want = window_attention(qkv, 2, 2, impl='sdpa')
    # Where no kernel would run, nothing is lost.
    assert warnings_of(window_attention, qkv, 2, 2, impl='sdpa') == []
    assert warnings_of(window_attention, qkv.bfloat16(), 2, 2) == []
    with reference_only():
        assert warnings_of(window_attention, qkv, 2, 2) == []
    texts = warnings_of(window_attention, qkv, 2, 2)
    (text,) = [x for x in texts if not x.startswith('Compiling')]
    assert 'broken' in text and 'MMATTN_CPU_KERNELS=0' in text
    assert warnings_of(window_attention, qkv, 2, 2) == []
    assert warnings_of(balanced_clusters, qkv[0]) == []
    torch.testing.assert_close(window_attention(qkv, 2, 2), want)
    with pytest.raises(RuntimeError, match="'cpp'.*broken"):
        window_attention(qkv, 2, 2, impl='cpp')


def test_without_a_compiler(kernels, monkeypatch, warnings_of):
    monkeypatch.setenv('CXX', 'no-compiler')
    assert not _native.is_available()
    qkv = torch.randn(1, 4, 4, 12)
    # Clustering widens what the other kernels do not take.
    (text,) = warnings_of(balanced_clusters, qkv[0].bfloat16())
    assert "'no-compiler'" in text and 'apt install g++' in text


@pytest.mark.parametrize('value', ['0', 'No', ' OFF ', 'false'])
def test_switched_off(kernels, monkeypatch, warnings_of, value):
    monkeypatch.setenv('MMATTN_CPU_KERNELS', value)
    qkv = torch.randn(1, 4, 4, 12)
    assert warnings_of(window_attention, qkv, 2, 2) == []
    assert not _native.is_available()
    with pytest.raises(RuntimeError, match="'cpp'.*MMATTN_CPU_KERNELS"):
        window_attention(qkv, 2, 2, impl='cpp')


@pytest.mark.parametrize('value', ['1', 'YES', 'on', 'True', ''])
def test_switched_on(monkeypatch, value):
    monkeypatch.setenv('MMATTN_CPU_KERNELS', value)
    assert not library.is_switched_off()


def test_two_libraries_share_a_cache(new_library, kernels, cache):
    own = new_library()
    assert own.why_not() is kernels.why_not() is None
    names = sorted(x.name.split('-')[0] for x in cache.glob('*.so'))
    assert names == ['ops', 'own']


def test_arguments_are_checked(new_library):
    fill = new_library().function('fill', 'tid')
    with pytest.raises(TypeError, match='3 arguments'):
        fill(torch.zeros(1), 1)
    with pytest.raises(ctypes.ArgumentError, match='argument 2'):
        fill(torch.zeros(1), 1.5, 1.0)
    with pytest.raises(ValueError, match='CPU'):
        fill(torch.zeros(1, device='meta'), 1, 1.0)


class Marked(torch.Tensor):
    """A subclass."""


@pytest.mark.parametrize(
    'tensors, reason',
    [
        ([torch.zeros(1).half()], 'float32 or float64'),
        ([torch.zeros(1), torch.zeros(1).double()], 'one dtype'),
        ([torch.zeros(1), torch.zeros(1, device='meta')], 'on a CPU'),
        ([torch.zeros(1).to_sparse()], 'dense'),
        (
            [torch.zeros(1).as_subclass(Marked)],
            'plain',
        ),
        ([torch.zeros(1), None], None),
        ([torch.nn.Parameter(torch.zeros(1))], None),
    ],
)
def test_tensors_that_no_kernel_takes(tensors, reason):
    found = why_not_tensors(*tensors)
    assert found is None if reason is None else reason in found


def test_a_profiler_sees_kernels():
    from torch.profiler import ProfilerActivity, profile

    qkv = torch.randn(1, 4, 4, 12)
    with profile(activities=[ProfilerActivity.CPU]) as result:
        window_attention(qkv, 2, 2, impl='cpp')
    assert 'mmattn::attend' in {x.key for x in result.key_averages()}


def test_negated_views_are_read_as_what_they_are():
    numbers = torch.randn(1, 4, 4, 12, dtype=torch.complex128)
    qkv = torch.conj(numbers).imag
    assert qkv.is_neg()
    torch.testing.assert_close(
        window_attention(qkv, 2, 2, impl='cpp'),
        window_attention(-numbers.imag, 2, 2, impl='reference'),
    )
