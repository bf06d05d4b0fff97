import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from mmattn.ops import balanced_clusters


def check_order(device, features, *options, dtype=torch.float32):
    features = features.to(device, dtype)
    got = balanced_clusters(features, *options, impl='triton')
    want = balanced_clusters(features.double(), *options, impl='reference')
    assert got.dtype == torch.int64
    assert torch.equal(got, want)


@pytest.mark.parametrize(
    'G, N, d, cluster_size',
    [
        (2, 7, 8, 8),  # one cluster
        (1, 16, 8, 8),
        (1, 13, 12, 3),
        (2, 11, 5, 2),
    ],
)
def test_order_is_that_of_the_definition(device, G, N, d, cluster_size):
    check_order(device, torch.randn(G, N, d), cluster_size)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(device, dtype):
    check_order(device, torch.randn(1, 9, 8), 4, dtype=dtype)


def test_options(device):
    check_order(device, torch.randn(1, 9, 8), 4, 0, 10.0)


def test_strides(device):
    features = torch.randn(9, 8, 2).permute(2, 0, 1)
    check_order(device, features, 4)
    check_order(device, features[:, None], 4)


@pytest.mark.parametrize('scale', [0.0, 1e-30, 1e30])
def test_any_scale(device, scale):
    check_order(device, scale * torch.randn(1, 9, 4), 4)


def test_equal_tokens_keep_their_order(device):
    check_order(device, torch.ones(1, 9, 4), 2)


def test_what_is_not_a_number_comes_last(device):
    features = torch.randn(1, 9, 4)
    features[0, 2] = torch.nan
    order = balanced_clusters(features.to(device), 4, impl='triton')
    assert order.sort().values.tolist() == [list(range(9))]


def test_tokens_that_32_bits_do_not_reach(device, spread_out):
    from mmattn.ops.triton_kernels.clustering import balanced_clusters

    features = torch.randn(1, 4, 8, device=device).half()
    want = balanced_clusters(features, 1, 2, 100.0)
    got = balanced_clusters(spread_out(features, 1), 1, 2, 100.0)
    assert torch.equal(got, want)


def test_groups_beyond_a_program(device, monkeypatch):
    from mmattn.ops.triton_kernels import clustering

    monkeypatch.setattr(clustering, '_MOST_TOKENS', 8)
    check_order(device, torch.randn(1, 14, 4), 3)
    monkeypatch.setattr(clustering, '_MOST_TOKENS', 2)
    check_order(device, torch.randn(1, 14, 4), 3)
    check_order(device, torch.ones(1, 9, 4), 2)


def test_shares_of_several_chunks(device, monkeypatch):
    from mmattn.ops.triton_kernels import clustering

    monkeypatch.setattr(clustering, '_MOST_TOKENS', 8)
    monkeypatch.setattr(clustering, '_SHARES', 2)
    monkeypatch.setattr(clustering, '_THREAD_VALUES', 1)
    check_order(device, torch.randn(2, 45, 12), 5)


def test_no_problem_or_no_token(device):
    for shape in ((0, 9, 4), (2, 0, 4)):
        features = torch.zeros(shape, device=device)
        order = balanced_clusters(features, 4, impl='triton')
        assert order.shape == shape[:2]


@pytest.mark.slow
@pytest.mark.parametrize('N, d', [(98, 32), (200, 24)])
def test_more_tokens(device, N, d):
    check_order(device, torch.randn(2, N, d))


def test_operator_keeps_the_rules_of_torch_library(device):
    from mmattn.ops.triton_kernels.clustering import balanced_clusters

    features = torch.randn(1, 5, 2, device=device)
    torch.library.opcheck(balanced_clusters, (features, 2, 1, 100.0))


def test_compiled_for_all_sizes_at_once(device):
    def cluster(features):
        return balanced_clusters(features, 2, 1, impl='triton')

    torch._dynamo.reset()
    counter = CompileCounterWithBackend('eager')
    compiled = torch.compile(
        cluster, fullgraph=True, dynamic=True, backend=counter
    )
    for N in (5, 6):
        features = torch.randn(2, N, 3, device=device)
        assert torch.equal(compiled(features), cluster(features))
    assert counter.frame_count == 1
