"""Attention inside the stripes of a map, two orientations side by side.

Axes: B batch, H W rows and columns of the map, C = h * d channels, h heads,
d channels of a head, s width of a stripe, n windows, N tokens of a window.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .attention import attention
from .compiling import sizes_vary
from .convolution import depthwise_convolution
from .cpu_kernels import refuse_cpp, register_kernel
from .cpu_kernels.attention import (
    SlotGroups,
    attend_in_groups,
    runs_of_slots,
)
from .implementations import (
    Reason,
    choose_implementation,
    register_implementation,
    where_it_exists,
)
from .operators import define_operator
from .size_cache import cached_per_size
from .windows import Size, merge_windows, padded_size, split_windows


def cross_shaped_attention(
    qkv: Tensor,
    num_heads: int,
    stripe_width: int | None,
    local_weight: Tensor,
    local_bias: Tensor | None = None,
    scale: float | None = None,
    impl: str = 'auto',
) -> Tensor:
    """Let every token attend to its column of tokens and to its row.

    Source: CSWin, https://arxiv.org/abs/2107.00652, sections 3.2 and 3.3. The
    first half of the heads attends inside vertical stripes (H rows, s
    columns), the second inside horizontal ones (s rows, W columns). A 3x3
    depthwise convolution of the values inside each stripe, with zeros around
    it, is added to the result (locally-enhanced positional encoding).

    A map that the stripes do not divide is padded with zeros on both sides,
    half of them, rounded down, at the top or the left. The padding takes part
    as keys and in the convolution, as in the published backbone for dense
    prediction.

    Args:
        qkv: Queries, keys and values side by side, ``(B, H, W, 3 * C)``, each
            of ``h`` heads of ``d`` channels.
        num_heads: Number of heads h of both orientations, even.
        stripe_width: Columns or rows s of a stripe; None for attention of all
            heads, also of an odd number of them, to the whole map.
        local_weight: Kernels of the convolution, ``(C, 1, 3, 3)``.
        local_bias: Its bias, ``(C, )``. Defaults to None, no bias.
        scale: Factor of the products. Defaults to None, ``d ** -0.5``.
        impl: ``'reference'``, ``'sdpa'`` (PyTorch's fused attention inside
            the stripes), another registered name, or ``'auto'``. Defaults to
            ``'auto'``.

    Returns:
        ``(B, H, W, C)`` in the dtype of ``qkv``.

    Raises:
        ValueError: If the channels are not three times a multiple of
            ``num_heads``, the kernels or their bias do not fit them, the
            stripes have no width, or ``num_heads`` is odd and there are
            stripes.
    """
    _check(qkv, num_heads, stripe_width, local_weight, local_bias)
    if scale is None:
        scale = (qkv.shape[-1] // (3 * num_heads)) ** -0.5
    args = (qkv, num_heads, stripe_width, local_weight, local_bias, scale)
    row = choose_implementation('cross_shaped_attention', impl, *args)
    if sizes_vary(qkv) and not row.any_size:
        # Autocast would do the same inside.
        local = [
            None if x is None else x.to(qkv.dtype)
            for x in (local_weight, local_bias)
        ]
        return _for_any_size(*args[:3], *local, scale, impl)
    return row.function(*args)


_for_any_size = define_operator(
    'cross_shaped_attention_for_any_size',
    'Tensor qkv, int num_heads, int? stripe_width, Tensor local_weight, '
    'Tensor? local_bias, float scale, str impl',
    cross_shaped_attention,
)


def _check(
    qkv: Tensor,
    num_heads: int,
    stripe_width: int | None,
    local_weight: Tensor,
    local_bias: Tensor | None,
) -> None:
    who = 'cross_shaped_attention'
    if qkv.ndim != 4 or num_heads < 1 or qkv.shape[-1] % (3 * num_heads):
        raise ValueError(
            f'{who} expects qkv (B, H, W, 3 * heads * d), got '
            f'{tuple(qkv.shape)} with {num_heads=}'
        )
    kernels = (qkv.shape[-1] // 3, 1, 3, 3)
    if local_weight.shape != kernels:
        raise ValueError(
            f'{who} expects local_weight {kernels}, got '
            f'{tuple(local_weight.shape)}'
        )
    if local_bias is not None and local_bias.shape != kernels[:1]:
        raise ValueError(
            f'{who} expects local_bias {kernels[:1]}, got '
            f'{tuple(local_bias.shape)}'
        )
    if stripe_width is not None and (stripe_width < 1 or num_heads % 2):
        raise ValueError(
            f'{who} expects stripe_width >= 1 and an even num_heads, got '
            f'{stripe_width=}, {num_heads=}'
        )


@register_implementation('cross_shaped_attention', 'reference')
def _reference(*args) -> Tensor:
    return _in_stripes(*args, impl='reference')


@register_implementation(
    'cross_shaped_attention', 'sdpa', needs='torch.nn.functional', priority=10
)
def _sdpa(*args) -> Tensor:
    return _in_stripes(*args, impl='sdpa')


def stripe_sizes(size: Size, stripe_width: int | None) -> list[Size]:
    """Rows and columns of a stripe, of each orientation, or of the map."""
    H, W = size
    if stripe_width is None:
        return [(H, W)]
    return [(H, stripe_width), (stripe_width, W)]


def _refuse(
    qkv: Tensor,
    num_heads: int,
    stripe_width: int | None,
    weight: Tensor,
    bias: Tensor | None,
    *args,
) -> Reason:
    return refuse_cpp(qkv, weight, bias)


@register_kernel('cross_shaped_attention', priority=30, refuses=_refuse)
def _in_slots(
    qkv: Tensor,
    num_heads: int,
    stripe_width: int | None,
    weight: Tensor,
    bias: Tensor | None,
    scale: float,
) -> Tensor:
    size = tuple(qkv.shape[1:3])
    windows = stripe_sizes(size, stripe_width)
    share = num_heads // len(windows)
    groups = [
        _stripe_slots(size, window, qkv.device)._replace(
            heads=(i * share, share)
        )
        for i, window in enumerate(windows)
    ]
    return attend_in_groups(
        qkv, num_heads, groups, scale, weight=weight, local_bias=bias
    )


@cached_per_size
def _stripe_slots(
    size: Size, window: Size, device: torch.device
) -> SlotGroups:
    tokens = torch.arange(size[0] * size[1], device=device).view(1, *size, 1)
    slots = _cut(tokens + 1, window)[0].flatten().int() - 1
    N = window[0] * window[1]
    ranges = runs_of_slots(len(slots), N, device)
    return SlotGroups(slots, ranges, N, N, size=window)


def _in_stripes(
    qkv: Tensor,
    num_heads: int,
    stripe_width: int | None,
    weight: Tensor,
    bias: Tensor | None,
    scale: float,
    impl: str,
) -> Tensor:
    H, W = qkv.shape[1:3]
    windows = stripe_sizes((H, W), stripe_width)
    parts = len(windows)
    weights = weight.chunk(parts)
    biases = [None] * parts if bias is None else bias.chunk(parts)
    d = qkv.shape[-1] // (3 * num_heads)
    # Each orientation takes its part of the heads.
    halves = qkv.unflatten(-1, (3, parts, -1)).unbind(-2)
    outs = []
    for i, window in enumerate(windows):
        cut, size, (top, left) = _cut(halves[i].flatten(-2), window)
        # (B, n, N, 3 * C / parts)
        q, k, v = cut.unflatten(-1, (3, -1, d)).permute(3, 0, 1, 4, 2, 5)
        out = attention(q, k, v, None, scale, impl)  # (B, n, h / parts, N, d)
        out = out.transpose(2, 3).flatten(-2)  # (B, n, N, C / parts)
        values = cut[..., -out.shape[-1] :]
        out = out + _convolve(values, window, weights[i], biases[i], impl)
        out = merge_windows(out, window, size)
        outs.append(out[:, top : top + H, left : left + W])
    return torch.cat(outs, dim=-1)


def _cut(x: Tensor, window: Size) -> tuple[Tensor, Size, Size]:
    """Pad a map evenly on both sides and cut it into windows.

    Returns:
        The windows ``(B, n, N, C)``, the size of the padded map, and the
        rows and columns that were added before the first.
    """
    H, W = x.shape[1:3]
    size = padded_size((H, W), window)
    top, left = (size[0] - H) // 2, (size[1] - W) // 2
    if size != (H, W):
        bottom, right = size[0] - H - top, size[1] - W - left
        x = F.pad(x, (0, 0, left, right, top, bottom))
    return split_windows(x, window), size, (top, left)


def _convolve(
    v: Tensor, window: Size, weight: Tensor, bias: Tensor | None, impl: str
) -> Tensor:
    """Convolve ``(B, n, N, C)`` depthwise, each window by itself."""
    B, n, _, C = v.shape
    x = v.reshape(B * n, *window, C)
    impl = where_it_exists('depthwise_convolution', impl)
    return depthwise_convolution(x, weight, bias, impl=impl).reshape(v.shape)
