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
def test_order_is_that_of_the_reference(device, G, N, d, cluster_size):
    check_order(device, torch.randn(G, N, d), cluster_size)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(device, dtype):
    check_order(device, torch.randn(1, 9, 8), 4, dtype=dtype)


def test_options(device):
    check_order(device, torch.randn(1, 9, 8), 4, 0, 10.0)


def heads_of(qkv, num_heads):
    """Queries ``(B, h, N, d)``, a view that no flat tensor has."""
    q = qkv.chunk(3, dim=-1)[0].unflatten(-1, (num_heads, -1))
    return q.transpose(1, 2)


def test_strides(device):
    features = torch.randn(9, 8, 2).permute(2, 0, 1)
    check_order(device, features, 4)
    check_order(device, features[:, None], 4)
    check_order(device, heads_of(torch.randn(2, 9, 3 * 3 * 8), 3), 4)


def test_heads_are_read_where_they_lie(device, monkeypatch):
    from mmattn.ops.balanced_clusters import kernels

    class Spy(dict):
        def __missing__(self, grid):
            return lambda features, *args, **tiles: read.append(features)

    read = []
    monkeypatch.setattr(kernels, 'sort_groups', Spy())
    q = heads_of(torch.randn(2, 9, 3 * 3 * 8, device=device), 3)
    balanced_clusters(q, 4, impl='triton')
    assert [x.data_ptr() for x in read] == [q.data_ptr()]


@pytest.mark.parametrize('scale', [0.0, 1e-30, 1e30])
def test_any_scale(device, scale):
    check_order(device, scale * torch.randn(1, 9, 4), 4)


def test_equal_tokens_keep_their_order(device):
    check_order(device, torch.ones(1, 9, 4), 2)


def check_overflow(device, value):
    """Nothing but its own problem, which keeps its order, is spoilt."""
    features = torch.randn(3, 9, 4, device=device)
    want = balanced_clusters(features.double(), 3, impl='reference')
    features[1, 5] = value
    want[1] = torch.arange(9)
    assert torch.equal(balanced_clusters(features, 3, impl='triton'), want)


@pytest.mark.filterwarnings('ignore:invalid value')  # of the interpreter
@pytest.mark.parametrize('value', [torch.nan, torch.inf, -torch.inf])
def test_overflown_features_spoil_no_other_problem(device, value):
    check_overflow(device, value)


def check_distant_places(features, spread_out):
    from mmattn.ops.balanced_clusters.triton import balanced_clusters

    want = balanced_clusters(features, 1, 2, 100.0)
    for axis in range(3):
        if features.shape[axis] > 2:
            spread = spread_out(features, axis)
            assert torch.equal(balanced_clusters(spread, 1, 2, 100.0), want)


SHAPES = pytest.mark.parametrize(
    'shape', [(3, 1, 2, 8), (1, 3, 2, 8), (1, 1, 4, 8)], ids=str
)


@SHAPES
def test_places_that_32_bits_do_not_reach(device, spread_out, shape):
    check_distant_places(torch.randn(shape, device=device).half(), spread_out)


@pytest.fixture
def few_for_a_program(monkeypatch):
    """Programs that sort, sum up and merge a few tokens only."""
    from mmattn.ops.balanced_clusters import triton

    def set_limits(most_tokens, shares=4, runs=2, merged=2):
        monkeypatch.setattr(triton, '_MOST_TOKENS', most_tokens)
        monkeypatch.setattr(triton, '_SHARES', shares)
        monkeypatch.setattr(triton, '_RUNS', runs)
        monkeypatch.setattr(triton, '_MERGED', merged)

    return set_limits


@pytest.mark.parametrize('most_tokens, runs', [(8, 2), (2, 2), (2, 4)])
@pytest.mark.parametrize(
    'features',
    [
        torch.randn(1, 14, 4),
        torch.randn(1, 1, 17, 3),  # halves of which one needs a merge more
        torch.ones(1, 9, 4),
        torch.eye(3)[torch.randint(3, (1, 13))],  # ties of different tokens
    ],
    ids=['even', 'odd', 'equal', 'ties'],
)
def test_groups_beyond_a_program(
    device, few_for_a_program, features, most_tokens, runs
):
    few_for_a_program(most_tokens, runs=runs)
    check_order(device, features, 3)


def test_strided_groups_beyond_a_program(device, few_for_a_program):
    few_for_a_program(4)
    q = heads_of(torch.randn(2, 9, 3 * 3 * 8), 3)
    check_order(device, q, 4, dtype=torch.bfloat16)


@pytest.mark.filterwarnings('ignore:invalid value')
@pytest.mark.parametrize('value', [torch.nan, torch.inf])
def test_overflown_groups_beyond_a_program(device, few_for_a_program, value):
    few_for_a_program(4, shares=2)
    check_overflow(device, value)


def test_shares_of_several_chunks(device, monkeypatch, few_for_a_program):
    from mmattn.ops.balanced_clusters import triton

    few_for_a_program(8, shares=2)
    monkeypatch.setattr(triton, '_THREAD_VALUES', 1)
    check_order(device, torch.randn(1, 45, 12), 10)


@SHAPES
def test_groups_that_32_bits_do_not_reach(
    device, few_for_a_program, spread_out, shape
):
    few_for_a_program(1, shares=1, merged=1)
    check_distant_places(torch.randn(shape, device=device).half(), spread_out)


def test_nothing_is_sorted_by_pytorch(device, few_for_a_program, monkeypatch):
    few_for_a_program(4)
    features = torch.randn(1, 14, 4, device=device)
    want = balanced_clusters(features.double(), 3, impl='reference')
    for name in ('sort', 'argsort', 'msort', 'topk', 'kthvalue'):
        monkeypatch.delattr(torch, name)
        monkeypatch.setattr(torch.Tensor, name, None, raising=False)
    assert torch.equal(balanced_clusters(features, 3, impl='triton'), want)


@pytest.mark.parametrize(
    'N, most_tokens',
    [(1100, 256), pytest.param(4500, 4096, marks=pytest.mark.slow)],
)
def test_many_tokens(device, monkeypatch, few_for_a_program, N, most_tokens):
    """Of few directions, so that no rounding parts what is equal."""
    from mmattn.ops.balanced_clusters import triton

    few_for_a_program(most_tokens, merged=256, runs=32)
    monkeypatch.setattr(triton, '_THREAD_VALUES', 512)
    tokens = torch.randn(97, 4)
    features = tokens[torch.randint(97, (1, N))]
    check_order(device, features, N // 2)


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
    features = torch.randn(1, 5, 2, device=device)
    operator = torch.ops.mmattn.balanced_clusters_triton.default
    torch.library.opcheck(operator, (features, 2, 1, 100.0))


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
