import math

import pytest
import torch
import torch.nn.functional as F

from mmattn.ops import cluster_attention

NARROW = ('reference', 'sdpa')  # take half precision too
IMPLS = (*NARROW, 'cpp')


def clusters_by_hand(order, cluster_size):
    groups = [order]
    levels = max(0, math.floor(math.log2(len(order) / cluster_size)))
    for _ in range(levels):
        cuts = [math.ceil(len(group) / 2) for group in groups]
        groups = [
            half
            for group, cut in zip(groups, cuts)
            for half in (group[:cut], group[cut:])
        ]
    return groups


def by_hand(q, k, v, order, cluster_size, overlap, scale):
    """Attend token by token, with keys gathered cluster by cluster."""
    out = torch.full_like(v, torch.nan)
    for g, row in enumerate(order.tolist()):
        groups = clusters_by_hand(row, cluster_size)
        for i, own in enumerate(groups):
            keys = list(own)
            n = round(overlap * len(own) / cluster_size)
            if len(groups) > 1 and i % 2 == 0:
                keys += groups[i + 1][:n]
            elif len(groups) > 1 and n > 0:
                keys += groups[i - 1][-n:]
            for token in own:
                scores = scale * k[g, keys] @ q[g, token]
                weights = scores.exp() / scores.exp().sum()
                out[g, token] = weights @ v[g, keys]
    return out


def attend(q, k, v, order, *args, **kwargs):
    """The operation on independent problems, as images of one head."""
    qkv = torch.cat((q, k, v), dim=-1)
    return cluster_attention(qkv, order[:, None], *args, **kwargs)


def inputs(G, N, d, dtype=torch.float64):
    q, k, v = torch.randn(3, G, N, d, dtype=dtype)
    order = torch.stack([torch.randperm(N) for _ in range(G)])
    return [x.clone().requires_grad_() for x in (q, k, v)] + [order]


@pytest.mark.parametrize('impl', IMPLS)
@pytest.mark.parametrize(
    'N, cluster_size, overlap',
    [
        (1, 49, 20),
        (30, 49, 20),
        (98, 49, 20),
        (9 * 29, 49, 20),  # clusters of 65 and 66
        (9 * 14, 49, 0),
        (107, 8, 8),  # all of the sibling, which has one token less
        (107, 8, 3),
        (7, 1, 1),
        (6, 1, 0),
        (21, 5, 2),
    ],
)
def test_equals_attention_by_hand(N, cluster_size, overlap, impl):
    q, k, v, order = inputs(3, N, 4)
    out = attend(q, k, v, order, cluster_size, overlap, impl=impl)
    want = by_hand(q, k, v, order, cluster_size, overlap, 4**-0.5)
    torch.testing.assert_close(out, want, rtol=0, atol=1e-12)


def test_scale_and_defaults():
    q, k, v, order = inputs(2, 120, 4)
    torch.testing.assert_close(
        attend(q, k, v, order, scale=1.0),
        by_hand(q, k, v, order, 49, 20, 1.0),
        rtol=0,
        atol=1e-12,
    )


def test_published_layer(golden_case):
    """The layer around the operation, in float64, on a 28 x 28 map."""
    import golden

    case = golden_case('content_attention')
    state = {k: torch.from_numpy(w) for k, w in case['state'].items()}
    x = torch.from_numpy(case['inputs']['x'])  # (B, N, C)
    qkv = F.linear(x, state['qkv.weight'], state['qkv.bias'])
    order = torch.from_numpy(case['arrays']['cluster_order']).long()
    out = cluster_attention(qkv, order)
    image = qkv[..., 192:].mT.reshape(2, 96, 28, 28)
    local = F.conv2d(
        image, state['get_v.weight'], state['get_v.bias'], padding=1, groups=96
    )
    out = out + local.flatten(2).mT
    out = F.linear(out, state['proj.weight'], state['proj.bias'])
    assert golden.difference(case['captures']['out'], out.numpy()) <= 1e-9


@pytest.mark.parametrize('N', [10, 11])
@pytest.mark.parametrize('impl', IMPLS)
def test_gradcheck(N, impl):
    q, k, v, order = inputs(2, N, 2)
    assert torch.autograd.gradcheck(
        lambda *x: attend(*x, order, 5, 2, impl=impl), (q, k, v)
    )


@pytest.mark.parametrize('N', [98, 9 * 29])
def test_all_have_the_gradients_of_the_reference(N):
    q, k, v, order = inputs(4, N, 8)
    weights = torch.randn(4, N, 8, dtype=torch.float64)
    want, *found = (
        torch.autograd.grad(
            (weights * attend(q, k, v, order, impl=impl)).sum(),
            (q, k, v),
        )
        for impl in IMPLS
    )
    for got in found:
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize('impl', NARROW)
def test_half_precision_error_is_that_of_the_plain_formula(impl, half):
    q, k, v, order = inputs(4, 9 * 29, 16)
    q, k, v = (x.detach().to(half) for x in (q, k, v))

    def plain(q, k, v):
        out = torch.empty_like(v)
        for g, row in enumerate(order.tolist()):
            groups = clusters_by_hand(row, 49)
            for i, own in enumerate(groups):
                n = round(20 * len(own) / 49)
                near = groups[i + 1][:n] if i % 2 == 0 else groups[i - 1][-n:]
                scores = q[g, own] * 0.25 @ k[g, own + near].T
                out[g, own] = scores.softmax(-1) @ v[g, own + near]
        return out

    exact = plain(q.double(), k.double(), v.double())
    out = attend(q, k, v, order, impl=impl)
    assert out.dtype == half
    allowed = 2 * (plain(q, k, v) - exact).abs().max()
    assert (out - exact).abs().max() <= allowed


@pytest.mark.parametrize('impl', IMPLS)
def test_autocast_does_not_narrow(impl):
    q, k, v, order = inputs(2, 107, 4, dtype=torch.float32)
    want = attend(q, k, v, order, 8, 3, impl=impl)
    with torch.autocast('cpu', torch.bfloat16):
        out = attend(q, k, v, order, 8, 3, impl=impl)
    assert out.dtype == torch.float32
    assert torch.equal(out, want)


@pytest.mark.parametrize('impl', IMPLS)
def test_no_problem_depends_on_the_others(impl):
    q, k, v, order = inputs(5, 107, 4)
    out = attend(q, k, v, order, 8, 3, impl=impl)
    for i in range(5):
        one = slice(i, i + 1)
        alone = attend(q[one], k[one], v[one], order[one], 8, 3, impl=impl)
        torch.testing.assert_close(alone, out[one], rtol=0, atol=1e-12)
    empty = attend(q[:0], k[:0], v[:0], order[:0], 8, 3, impl=impl)
    assert empty.shape == (0, 107, 4)


@pytest.mark.parametrize('impl', IMPLS)
def test_strided_inputs(impl):
    qkv = torch.randn(2, 107, 24, dtype=torch.float64)
    order = torch.stack([torch.randperm(107) for _ in range(4)])
    order = order.view(2, 2, 107)
    want = cluster_attention(qkv, order, 8, 3, impl=impl)
    strided = qkv.mT.contiguous().mT, order.mT.contiguous().mT
    assert not any(x.is_contiguous() for x in strided)
    out = cluster_attention(*strided, 8, 3, impl=impl)
    torch.testing.assert_close(out, want, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    'shapes',
    [
        ((2, 9, 12), (2, 1, 8)),
        ((2, 9, 12), (1, 1, 9)),
        ((2, 9, 12), (2, 3, 9)),
        ((2, 9, 12), (2, 0, 9)),
        ((2, 9, 12), (2, 9)),
        ((1, 2, 9, 12), (1, 1, 2, 9)),
    ],
)
def test_shapes_that_do_not_fit(shapes):
    qkv, order = map(torch.zeros, shapes)
    with pytest.raises(ValueError, match='order') as error:
        cluster_attention(qkv, order)
    assert f'got {shapes[0]} and {shapes[1]}' in str(error.value)


@pytest.mark.parametrize('cluster_size, overlap', [(5, 6), (5, -1), (0, 0)])
def test_sizes_out_of_range(cluster_size, overlap):
    q, k, v, order = inputs(1, 9, 4)
    with pytest.raises(ValueError, match=f'overlap={overlap}'):
        attend(q, k, v, order, cluster_size, overlap)


def test_cpp_keeps_what_is_not_finite_from_clusters_that_do_not_see_it():
    qkv = torch.randn(1, 8, 6)
    qkv[0, 7, 4:] = torch.nan
    order = torch.arange(8).expand(1, 1, 8)
    found = []
    for impl in ('reference', 'cpp'):
        x = qkv.clone().requires_grad_()
        cluster_attention(x, order, 4, 1, impl=impl).sum().backward()
        found.append(x.grad.isnan().any(-1))
    assert torch.equal(*found) and not found[0].all()


@pytest.mark.parametrize('order', [[0, 1, 2, 4], [0, -1, 2, 3], [0, 1, 1, 3]])
def test_cpp_reads_tokens_of_the_map_alone(order):
    order = torch.tensor(order).expand(1, 1, 4)
    with pytest.raises((IndexError, RuntimeError), match='tokens|bounds'):
        cluster_attention(torch.zeros(1, 4, 6), order, 2, 1, impl='cpp')


def test_cpp_takes_integers_and_does_not_mind_the_default_device():
    qkv, order = torch.randn(1, 12, 6), torch.arange(12).expand(1, 1, 12)
    with torch.device('meta'):
        out = cluster_attention(qkv, order, 3, 1, impl='cpp')
    want = cluster_attention(qkv, order, 3, 1, impl='reference')
    torch.testing.assert_close(out, want)
    with pytest.raises(RuntimeError, match='order of integers'):
        cluster_attention(qkv, order.float(), 3, 1, impl='cpp')
