import pytest
import torch

from mmattn.ops import (
    balanced_clusters,
    definitions_first,
    layer_norm,
    linear,
    window_attention,
)
from mmattn.ops.cpu_kernels import building, library, refuse_cpp


def test_without_a_home_the_next_row_runs(monkeypatch):
    def homeless():
        raise RuntimeError('Could not determine home directory.')

    monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
    monkeypatch.setattr(building.Path, 'home', homeless)
    library._load.cache_clear()
    try:
        assert 'home directory' in refuse_cpp(torch.zeros(1))
        window_attention(torch.zeros(1, 2, 2, 6), 1, 2)
    finally:
        library._load.cache_clear()


@pytest.fixture
def warnings_of(caplog):
    """What a call warns of, as the first one in a process."""
    library._warn_once.cache_clear()

    def listen(call, *args, **options):
        caplog.clear()
        call(*args, **options)
        return [r.getMessage() for r in caplog.records]

    yield listen
    library._warn_once.cache_clear()


def test_a_missing_compiler_is_told_once(monkeypatch, warnings_of):
    monkeypatch.setattr(building, '_MISSING', 'there is no C++ compiler')
    qkv, x = torch.randn(1, 4, 4, 12), torch.randn(1, 16)
    # Who asks for another row, or could not have had this one, loses nothing.
    assert warnings_of(window_attention, qkv, 2, 2, impl='sdpa') == []
    assert warnings_of(window_attention, qkv.bfloat16(), 2, 2) == []
    assert warnings_of(layer_norm, x.to('meta'), None, None) == []
    with definitions_first():
        assert warnings_of(layer_norm, x, None, None) == []
    few = torch.randn(511, 16)
    assert warnings_of(linear, few, few[:8]) == []
    # Clustering widens what the other kernels do not take.
    (text,) = warnings_of(balanced_clusters, qkv[0].bfloat16())
    library._warn_once.cache_clear()
    (text,) = warnings_of(window_attention, qkv, 2, 2)
    assert text.startswith(
        'No kernels in C++ on this CPU: there is no C++ compiler. Slower ones '
        "of PyTorch run instead (balanced_clusters: 'reference', cluster_att"
    )
    assert "layer_norm: 'reference', linear: 'onednn', mixed_conv" in text
    assert text.endswith(
        "window_attention: 'sdpa'). To mend it, install GCC (on Debian: apt "
        'install g++); to leave it so without this warning, set '
        'MMATTN_CPU_KERNELS=0'
    )
    assert warnings_of(window_attention, qkv, 2, 2) == []
    assert warnings_of(layer_norm, x, None, None) == []


def test_sources_that_do_not_compile_are_told_once(own_library, warnings_of):
    (own_library / 'fill.cpp').write_text('no C++')
    qkv = torch.randn(1, 4, 4, 12)
    compiling, text = warnings_of(window_attention, qkv, 2, 2)
    assert compiling.startswith('Compiling kernels')
    assert 'on this CPU: no kernels were built: ' in text
    assert 'To mend it, see what the compiler says' in text
    assert warnings_of(window_attention, qkv, 2, 2) == []


def test_who_switches_kernels_off_is_told_nothing(monkeypatch, warnings_of):
    monkeypatch.setattr(building, '_MISSING', 'MMATTN_CPU_KERNELS=0 switches')
    monkeypatch.setattr(building, 'IS_SWITCHED_OFF', True)
    assert warnings_of(layer_norm, torch.randn(1, 16), None, None) == []


def test_without_a_compiler_the_next_row_runs(monkeypatch):
    qkv = torch.randn(1, 4, 4, 12)
    want = window_attention(qkv, 2, 2, impl='sdpa')
    monkeypatch.setattr(building, '_MISSING', 'there is no C++ compiler')
    torch.testing.assert_close(window_attention(qkv, 2, 2), want)
    with pytest.raises(RuntimeError, match="impl 'cpp': there is no C.. comp"):
        window_attention(qkv, 2, 2, impl='cpp')


@pytest.mark.parametrize(
    'tensors, reason',
    [
        ([torch.zeros(1).half()], 'takes float32 or float64 alike, got torch'),
        ([torch.zeros(1), torch.zeros(1).double()], 'alike, got torch.float6'),
        ([torch.zeros(1, device='meta')], 'it runs on a CPU, got meta'),
        ([torch.zeros(1).to_sparse()], 'it takes dense tensors, got torch.sp'),
        ([torch.zeros(1), None], None),
    ],
)
def test_refuses(tensors, reason):
    got = refuse_cpp(*tensors)
    assert got is None if reason is None else reason in got


def test_refuses_what_looks_at_operations():
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False):
        assert 'a dispatch mode' in refuse_cpp(torch.zeros(1))
