import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmattn.ops import (
    balanced_clusters,
    cluster_sizes,
    forced_implementations,
)
from mmattn.ops._native import is_available
from mmattn.ops.balanced_clusters import cpu


@pytest.fixture(autouse=True, scope='module', params=['reference', 'cpp'])
def implementation(request):
    """Each test is one of both."""
    if request.param == 'cpp' and not is_available():
        pytest.skip('there is no C++ compiler')
    with forced_implementations({'balanced_clusters': request.param}):
        yield request.param


def unit(vector):
    return vector / vector.norm()


def by_hand(features, cluster_size, iterations, temperature):
    """Bisect the tokens ``(N, d)`` of one problem, group by group."""
    N = len(features)
    levels = max(0, math.floor(math.log2(N / cluster_size)))
    groups = [list(range(N))]
    for _ in range(levels):
        halves = []
        for group in groups:
            cut = math.ceil(len(group) / 2)
            centroids = [
                unit(sum(features[i] for i in part) / len(part))
                for part in (group[:cut], group[cut:])
            ]
            cosines = {}
            for step in range(iterations + 1):
                for i in group:
                    cosines[i] = [
                        float(unit(features[i]) @ c) for c in centroids
                    ]
                if step == iterations:
                    break
                sums = [0, 0]
                for i in group:
                    s = cosines[i]
                    weight = 1 / (1 + math.exp(temperature * (s[1] - s[0])))
                    sums[0] = sums[0] + weight * features[i]
                    sums[1] = sums[1] + (1 - weight) * features[i]
                centroids = [unit(total) for total in sums]
            ratio = {i: (1 + s[0]) / (1 + s[1]) for i, s in cosines.items()}
            group = sorted(group, key=ratio.get)
            halves += [group[:cut], group[cut:]]
        groups = halves
    return groups


def is_permutation(order):
    return torch.equal(
        order.sort(dim=-1).values,
        torch.arange(order.shape[1]).expand_as(order),
    )


@pytest.mark.parametrize(
    'N, cluster_size, iterations, temperature',
    [
        (1, 49, 2, 100.0),  # one token
        (48, 49, 2, 100.0),  # less than a cluster
        (97, 49, 2, 100.0),  # not enough for two
        (98, 49, 2, 100.0),
        (9 * 14, 49, 2, 100.0),
        (9 * 29, 49, 2, 100.0),  # odd, two levels
        (107, 8, 2, 100.0),  # odd halves at several levels
        (7, 1, 2, 100.0),
        (64, 1, 2, 100.0),
        (75, 9, 0, 100.0),
        (75, 9, 3, 100.0),
        (75, 9, 2, 5.0),
    ],
)
def test_equals_bisection_by_hand(N, cluster_size, iterations, temperature):
    features = torch.randn(4, N, 6, dtype=torch.float64)
    order = balanced_clusters(features, cluster_size, iterations, temperature)
    for row, tokens in zip(order.tolist(), features):
        groups = by_hand(tokens, cluster_size, iterations, temperature)
        assert row == sum(groups, [])
        assert cluster_sizes(N, cluster_size) == [len(x) for x in groups]


def test_defaults_are_the_published_values():
    features = torch.randn(2, 200, 8)
    assert torch.equal(
        balanced_clusters(features),
        balanced_clusters(
            features, cluster_size=49, iterations=2, temperature=100.0
        ),
    )


def test_published_order(golden_case):
    case = golden_case('content_attention')
    x = torch.from_numpy(case['inputs']['x'])
    weight = torch.from_numpy(case['state']['qkv.weight'])[:96]
    bias = torch.from_numpy(case['state']['qkv.bias'])[:96]
    q = (x @ weight.T + bias).unflatten(-1, (3, 32)).transpose(1, 2)
    order = balanced_clusters(q.flatten(0, 1)).view(2, 3, 784)
    want = torch.from_numpy(case['arrays']['cluster_order'])
    assert torch.equal(order, want.long())


@settings(deadline=None, max_examples=50)
@given(
    N=st.integers(1, 300),
    cluster_size=st.integers(1, 60),
    G=st.integers(1, 3),
    seed=st.integers(0, 2**16),
)
def test_every_token_is_in_one_of_even_clusters(N, cluster_size, G, seed):
    sizes = cluster_sizes(N, cluster_size)
    levels = max(0, (N // cluster_size).bit_length() - 1)
    assert len(sizes) == 2**levels
    assert sum(sizes) == N
    assert max(sizes) - min(sizes) <= 1
    assert N < cluster_size or min(sizes) >= cluster_size
    generator = torch.Generator().manual_seed(seed)
    order = balanced_clusters(
        torch.randn(G, N, 3, generator=generator), cluster_size
    )
    assert order.shape == (G, N) and order.dtype == torch.int64
    assert is_permutation(order)


def test_no_problem_depends_on_the_others():
    features = torch.randn(5, 9 * 29, 8, dtype=torch.float64)
    order = balanced_clusters(features, 16)
    for i in range(5):
        assert torch.equal(
            balanced_clusters(features[i : i + 1], 16)[0], order[i]
        )
    assert torch.equal(balanced_clusters(features.flip(0), 16), order.flip(0))
    assert balanced_clusters(features[:0], 16).shape == (0, 9 * 29)


def test_no_gradient():
    features = torch.randn(2, 60, 4, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda x: x):
        order = balanced_clusters(features, 7)
    assert not kept
    assert not order.requires_grad


def test_autocast_does_not_narrow(half):
    features = torch.randn(3, 300, 16).to(half)
    want = balanced_clusters(features.float())
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(balanced_clusters(features.float()), want)
        assert torch.equal(balanced_clusters(features), want)


def test_scale_of_features_does_not_matter():
    features = torch.randn(2, 107, 4)
    want = balanced_clusters(features, 8)
    for exponent in (-110, -60, 60, 110):
        scaled = features * 2.0**exponent
        assert torch.equal(balanced_clusters(scaled, 8), want), exponent


@pytest.mark.parametrize(
    'dtype', [torch.float16, torch.float32, torch.float64], ids=str
)
@pytest.mark.parametrize('N', [64, 107])
def test_degenerate_features(N, dtype):
    huge = torch.finfo(dtype).max
    line = torch.randn(1, 1, 4, dtype=dtype)
    signs = torch.where(torch.rand(2, N, 1) < 0.5, 1, -1)
    for features in (
        torch.zeros(2, N, 4, dtype=dtype),
        line.expand(2, N, 4),
        line * signs,
        torch.eye(4, dtype=dtype)[torch.randint(4, (2, N))],
        torch.full((2, N, 4), huge, dtype=dtype) * signs,
        torch.full((2, N, 4), torch.finfo(dtype).tiny, dtype=dtype),
        torch.randn(2, N, 4).to(dtype) * signs.cumsum(1).eq(3),
    ):
        assert is_permutation(balanced_clusters(features, 5))


def test_equal_tokens_keep_raster_order():
    order = balanced_clusters(torch.zeros(2, 107, 4), 5)
    assert torch.equal(order, torch.arange(107).expand(2, -1))


def test_opposite_tokens_are_parted():
    # Ascending by (1 + s0) / (1 + s1): those along centroid 1 come first.
    # Of so many directions some give, by rounding, a cosine below -1.
    directions = torch.randn(500, 1, 24)
    signs = torch.tensor([1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, -1.0])
    order = balanced_clusters(signs[:, None] * directions, 4)
    halves = order.unflatten(1, (2, 4)).sort(dim=-1).values
    want = torch.tensor([[2, 4, 6, 7], [0, 1, 3, 5]])
    assert torch.equal(halves, want.expand(500, -1, -1))


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_overflown_features_spoil_no_other_problem(value):
    features = torch.randn(3, 107, 4)
    want = balanced_clusters(features, 8)
    features[1, 50] = value
    want[1] = torch.arange(107)
    assert torch.equal(balanced_clusters(features, 8), want)


def test_strided_features():
    features = torch.randn(4, 107, 3)
    strided = features.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert not strided.is_contiguous()
    assert torch.equal(
        balanced_clusters(strided, 8), balanced_clusters(features, 8)
    )


def heads_of(qkv, num_heads):
    """Queries ``(B, h, N, d)``, a view."""
    q = qkv.chunk(3, dim=-1)[0].unflatten(-1, (num_heads, -1))
    return q.transpose(1, 2)


@pytest.mark.parametrize('N', [9, 107])
def test_heads_of_images(N):
    q = heads_of(torch.randn(2, N, 3 * 3 * 5, dtype=torch.float64), 3)
    order = balanced_clusters(q, 8)
    assert order.shape == (2, 3, N)
    assert torch.equal(
        order.flatten(0, 1), balanced_clusters(q.flatten(0, 1), 8)
    )


def test_kernel_reads_heads_where_they_lie(implementation, monkeypatch):
    read = []

    def spy(features, *args):
        read.append(features.data_ptr())
        real(features, *args)

    real = cpu._CLUSTER
    monkeypatch.setattr(cpu, '_CLUSTER', spy)
    q = heads_of(torch.randn(2, 107, 3 * 3 * 5), 3)
    balanced_clusters(q, 8)
    assert read == ([q.data_ptr()] if implementation == 'cpp' else [])


@pytest.mark.parametrize('d', [2, 8, 24, 33, 200])
def test_only_rounding_parts_float32_from_the_reference(d):
    features = torch.randn(3, 1003, d)
    want = balanced_clusters(features.double(), impl='reference')
    found = balanced_clusters(features)
    assert is_permutation(found)
    assert (found == want).double().mean() > 0.99
    assert torch.equal(balanced_clusters(features.double()), want)


def test_short_tokens_beside_long_ones():
    powers = torch.empty(3, 300, 1).uniform_(-36, -25)
    features = torch.randn(3, 300, 8) * 10**powers
    want = balanced_clusters(features.double(), impl='reference')
    assert (balanced_clusters(features) == want).double().mean() > 0.99


def test_number_of_threads_does_not_matter():
    features = torch.randn(5, 300, 16)
    before = torch.get_num_threads()
    orders = []
    try:
        for threads in (1, 2, 7):
            torch.set_num_threads(threads)
            orders.append(balanced_clusters(features))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(orders[0], orders[1])
    assert torch.equal(orders[0], orders[2])


@pytest.mark.parametrize(
    'shape, cluster_size',
    [((5, 4), 49), ((1, 1, 2, 5, 4), 49), ((1, 5, 4), 0), ((1, 5, 4), -3)],
)
def test_wrong_arguments(shape, cluster_size):
    with pytest.raises(ValueError, match=f'cluster_size={cluster_size}'):
        balanced_clusters(torch.zeros(shape), cluster_size)
