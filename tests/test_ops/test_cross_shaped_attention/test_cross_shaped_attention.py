import pytest
import torch

from mmattn.ops import cross_shaped_attention

NARROW = ('reference', 'sdpa')  # take half precision too
IMPLS = (*NARROW, 'cpp')
# Map, stripe width.
CASES = [
    ((1, 1), 7),
    ((6, 4), 2),
    ((5, 8), 1),
    ((5, 8), 3),  # one more row of padding below than above
    ((3, 10), 7),  # stripes wider than the map is high
    ((7, 5), None),
    ((67, 2), 2),  # more queries than are weighed at a time
]


def by_hand(qkv, heads, width, weight, bias, scale):
    """Attend and convolve place by place, by the coordinates."""
    B, H, W, _ = qkv.shape
    C = qkv.shape[-1] // 3
    d = C // heads
    out = qkv.new_empty(B, H, W, C)
    for b in range(B):
        for head in range(heads):
            high, wide = H, W
            if width is not None:
                high, wide = (H, width) if head < heads // 2 else (width, W)
            # Padding, half of it in front.
            top, left = -H % high // 2, -W % wide // 2
            channels = slice(head * d, (head + 1) * d)
            stripes = {}
            for y in range(-top, -top + -(-H // high) * high):
                for x in range(-left, -left + -(-W // wide) * wide):
                    token = qkv.new_zeros(3, d)
                    if 0 <= y < H and 0 <= x < W:
                        token = qkv[b, y, x].view(3, heads, d)[:, head]
                    stripe = ((y + top) // high, (x + left) // wide)
                    stripes.setdefault(stripe, {})[y, x] = token
            for tokens in stripes.values():
                k, v = (
                    torch.stack([token[i] for token in tokens.values()])
                    for i in (1, 2)
                )
                for (y, x), (q, _, _) in tokens.items():
                    if not (0 <= y < H and 0 <= x < W):
                        continue
                    weights = (scale * k @ q).exp()
                    mixed = weights @ v / weights.sum() + bias[channels]
                    for dy in (-1, 0, 1):
                        for dx in (-1, 0, 1):
                            near = tokens.get((y + dy, x + dx))
                            if near is not None:
                                factor = weight[channels, 0, dy + 1, dx + 1]
                                mixed = mixed + factor * near[2]
                    out[b, y, x, channels] = mixed
    return out


def inputs(size, heads=4, d=3, B=2, dtype=torch.float64):
    C = heads * d
    shapes = ((B, *size, 3 * C), (C, 1, 3, 3), (C,))
    return [
        torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes
    ]


@pytest.mark.parametrize('impl', IMPLS)
@pytest.mark.parametrize('size, width', CASES)
def test_equals_attention_by_hand(size, width, impl):
    qkv, weight, bias = (x.detach() for x in inputs(size))
    out = cross_shaped_attention(qkv, 4, width, weight, bias, impl=impl)
    want = by_hand(qkv, 4, width, weight, bias, 3**-0.5)
    torch.testing.assert_close(out, want, rtol=0, atol=1e-12)


def test_defaults_and_scale():
    qkv, weight, bias = (x.detach() for x in inputs((5, 4)))
    want = by_hand(qkv, 4, 2, weight, 0 * bias, 1.0)
    out = cross_shaped_attention(qkv, 4, 2, weight, scale=1.0)
    torch.testing.assert_close(out, want, rtol=0, atol=1e-12)


def test_the_whole_map_takes_an_odd_number_of_heads():
    qkv, weight, bias = (x.detach() for x in inputs((3, 4), heads=3))
    out = cross_shaped_attention(qkv, 3, None, weight, bias)
    want = by_hand(qkv, 3, None, weight, bias, 3**-0.5)
    torch.testing.assert_close(out, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize('width', [2, None])
@pytest.mark.parametrize('impl', IMPLS)
def test_gradcheck(width, impl):
    def run(*args):
        return cross_shaped_attention(args[0], 2, width, *args[1:], impl=impl)

    assert torch.autograd.gradcheck(run, inputs((2, 3), heads=2, d=1, B=1))


@pytest.mark.parametrize('needed', [(0,), (1,), (2,), (0, 2)])
def test_cpp_gives_the_gradients_that_are_asked_for(needed):
    def gradients(impl):
        torch.manual_seed(1)
        args = [x.detach() for x in inputs((5, 8))]
        for i in needed:
            args[i].requires_grad_()
        out = cross_shaped_attention(args[0], 4, 3, *args[1:], impl=impl)
        out.square().sum().backward()
        return [x.grad for x in args]

    for got, want in zip(gradients('cpp'), gradients('reference')):
        assert (got is None) == (want is None)
        if want is not None:
            torch.testing.assert_close(got, want)


@pytest.mark.parametrize('d', [4, 20, 32])  # published heads have 32 channels
@pytest.mark.parametrize('width', [3, None])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_cpp_has_the_gradients_of_the_reference(width, d, dtype):
    args = inputs((5, 8), d=d, dtype=dtype)
    exact = [x.detach().double().requires_grad_() for x in args]
    upstream = torch.randn(2, 5, 8, 4 * d)

    def results(args, impl):
        out = cross_shaped_attention(args[0], 4, width, *args[1:], impl=impl)
        grad = upstream.to(out.dtype)
        return out, *torch.autograd.grad(out, args, grad)

    rtol = 1e-5 if dtype == torch.float32 else 1e-12
    for a, b in zip(results(args, 'cpp'), results(exact, 'reference')):
        assert (a - b).abs().max() <= rtol * b.abs().max()


@pytest.mark.parametrize('width', [2, None])
def test_cpp_takes_any_strides_and_changes_no_input(width):
    whole = torch.randn(2, 6, 4, 40)
    _, weight, bias = (x.detach().float() for x in inputs((6, 4)))
    for qkv in (
        whole[..., 2:38],
        torch.randn(4, 36, 6, 2).permute(3, 2, 0, 1),
    ):
        before = qkv.clone()
        args = (4, width, weight, bias)
        out = cross_shaped_attention(qkv, *args, impl='cpp')
        want = cross_shaped_attention(qkv, *args, impl='reference')
        torch.testing.assert_close(out, want, rtol=1e-5, atol=1e-5)
        assert torch.equal(qkv, before)


def bytes_kept(size, width):
    qkv, weight, bias = inputs(size, heads=2, d=8, B=1, dtype=torch.float32)
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = cross_shaped_attention(qkv, 2, width, weight, bias)
    assert out.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize('width', [1, 7, None])
def test_memory_grows_with_the_tokens_not_their_pairs(width):
    kept = [bytes_kept((28 * n, 28), width) for n in (1, 2, 4)]
    assert kept[1] < 2.05 * kept[0]
    assert kept[2] < 2.05 * kept[1]


def test_half_precision_is_as_near_as_its_roundings():
    qkv, weight, bias = (x.detach() for x in inputs((9, 8)))
    want = cross_shaped_attention(qkv, 4, 3, weight, bias)
    narrow = [x.bfloat16() for x in (qkv, weight, bias)]
    plain = cross_shaped_attention(
        narrow[0], 4, 3, *narrow[1:], impl='reference'
    )
    fused = cross_shaped_attention(narrow[0], 4, 3, *narrow[1:], impl='sdpa')
    assert plain.dtype == fused.dtype == torch.bfloat16
    error = (plain - want).abs().max()
    assert (fused - want).abs().max() < 2 * error < 0.5


def test_channels_that_are_not_three_times_the_heads():
    with pytest.raises(ValueError, match='num_heads=2'):
        cross_shaped_attention(
            torch.zeros(2, 4, 4, 20), 2, 1, torch.zeros(6, 1, 3, 3)
        )


@pytest.mark.parametrize(
    'weight, bias', [((4, 1, 3, 3), None), ((8, 1, 3, 3), (4,))]
)
def test_lepe_of_other_channels(weight, bias):
    bias = None if bias is None else torch.zeros(bias)
    with pytest.raises(ValueError, match=r'lepe_\w+ \(8,.*got \(4,'):
        cross_shaped_attention(
            torch.zeros(2, 4, 4, 24), 2, 1, torch.zeros(weight), bias
        )


@pytest.mark.parametrize('heads, width', [(2, 0), (3, 1)])
def test_stripes_without_width_or_heads_without_halves(heads, width):
    with pytest.raises(ValueError, match=f'stripe_width={width}'):
        cross_shaped_attention(
            torch.zeros(2, 4, 4, 18), heads, width, torch.zeros(6, 1, 3, 3)
        )


@pytest.mark.parametrize('impl', IMPLS)
@pytest.mark.parametrize('width', [2, None])
def test_empty_batch(width, impl):
    args = inputs((5, 4), B=0)
    out = cross_shaped_attention(args[0], 4, width, *args[1:], impl=impl)
    assert out.shape == (0, 5, 4, 12)
    for grad in torch.autograd.grad(out.sum(), args):
        assert not grad.any()


@pytest.mark.parametrize('impl', NARROW)
def test_autocast_keeps_the_dtype(impl, half):
    args = inputs((5, 8), dtype=torch.float32)

    def call(qkv):
        return cross_shaped_attention(qkv, 4, 3, *args[1:], impl=impl)

    want = call(args[0])
    with torch.autocast('cpu', half):
        assert torch.equal(call(args[0]), want)
        low = call(args[0].to(half))
    assert low.dtype == half
    torch.testing.assert_close(low.float(), want, rtol=0, atol=0.1)
