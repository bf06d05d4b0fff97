"""Explanations of mmattn's attention layers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmattn.attentions import (
    CrossShapedWindowAttention,
    EfficientNonLocalAttention,
    FeatureSpaceAttention,
    KeyValueAttention,
    MultiHeadSelfAttention,
    ScaleAwareModulation,
    WindowAttention,
)
from mmattn.ops import cluster_sizes

from .explanations import (
    AttentionRows,
    Clusters,
    Explanation,
    Modulation,
    Token,
    register_explanation,
)
from .hooked_calls import attention_rows

# The 3x3 convolution of the values that is added to the attended values.
_LEPE = ('lepe.weight', 'lepe.bias')
_LOCAL_CONV = ('local_conv.weight', 'local_conv.bias')
Inputs = tuple[Tensor, ...]
Tokens = Sequence[Token]


@register_explanation(WindowAttention, CrossShapedWindowAttention)
def _explain_windows(
    layer: nn.Module, inputs: Inputs, tokens: Tokens
) -> list[Explanation]:
    """Also explains SlidingWindowAttention, a subclass."""
    zeroed = () if isinstance(layer, WindowAttention) else _LEPE
    args = (layer, inputs, tokens, layer.qkv, layer.proj, zeroed)
    # Windows are padded at the bottom and right before the projection.
    H, W = inputs[0].shape[1:3]
    rows = attention_rows(*args)[..., :H, :W]
    # Without keys, every token within reach has a weight above 0.
    reach = attention_rows(*args, with_keys=False)[..., :H, :W] > 0
    return [AttentionRows(rows, reach)]


@register_explanation(FeatureSpaceAttention)
def _explain_clusters(
    layer: FeatureSpaceAttention, inputs: Inputs, tokens: Tokens
) -> list[Explanation]:
    rows = _explain_windows(layer, inputs, tokens)
    with torch.no_grad():
        order = layer.cluster(layer.qkv(inputs[0]))[0]  # (h, N)
    levels = split_levels(order, layer.cluster_size)
    size = inputs[0].shape[1:3]
    clusters = Clusters(tuple(x.unflatten(1, size) for x in levels))
    return [clusters, *rows] if levels else rows


@register_explanation(MultiHeadSelfAttention)
def _explain_global(
    layer: MultiHeadSelfAttention, inputs: Inputs, tokens: Tokens
) -> list[Explanation]:
    args = (layer, inputs, tokens, layer.qkv, layer.proj, _LOCAL_CONV)
    return [AttentionRows(attention_rows(*args))]


@register_explanation(EfficientNonLocalAttention)
def _explain_random_features(
    layer: EfficientNonLocalAttention, inputs: Inputs, tokens: Tokens
) -> list[Explanation]:
    """Weights ``phi(q) phi(k)``, divided by their sum over the keys."""
    return [AttentionRows(attention_rows(layer, inputs, tokens, layer.v))]


@register_explanation(KeyValueAttention)
def _explain_key_values(
    layer: KeyValueAttention, inputs: Inputs, tokens: Tokens
) -> list[Explanation]:
    """Needs keys that form a map; other tokens have no position to show."""
    weights = attention_rows(layer, inputs, tokens, layer.v_proj, layer.o_proj)
    return [AttentionRows(weights)] if weights.ndim == 4 else []


@register_explanation(ScaleAwareModulation)
def _explain_modulation(
    layer: ScaleAwareModulation, inputs: Inputs, tokens: Tokens
) -> list[Explanation]:
    convs, projs = [], []
    with (
        torch.no_grad(),
        # With all values 1, the input of proj is the modulator.
        layer.v.register_forward_hook(lambda *x: torch.ones_like(x[-1])),
        layer.local_convs.register_forward_hook(lambda *x: convs.append(x)),
        layer.proj.register_forward_hook(lambda *x: projs.append(x)),
    ):
        layer(*inputs)
    # Each group of `num_heads` channels has one channel of every scale.
    scales = convs[0][-1][0].unflatten(-1, (-1, layer.num_heads))
    modulator = projs[0][1][0][0]
    return [
        Modulation(
            layer.local_convs.kernel_sizes,
            scales.abs().mean(2).movedim(-1, 0),
            modulator.abs().mean(-1),
        )
    ]


def split_levels(order: Tensor, cluster_size: int) -> tuple[Tensor, ...]:
    """Label each token with its group after each bisection.

    Args:
        order: ``(G, N)`` from ``mmattn.ops.balanced_clusters`` with the same
            ``cluster_size``.
        cluster_size: Minimum number of tokens of a cluster.

    Returns:
        One ``(G, N)`` int64 in raster order per bisection, coarsest first;
        none if there is only one cluster.
    """
    sizes = torch.tensor(
        cluster_sizes(order.shape[1], cluster_size), device=order.device
    )
    levels = []
    while len(sizes) > 1:
        groups = torch.arange(len(sizes), device=order.device)
        labels = groups.repeat_interleave(sizes).expand_as(order)
        levels.append(torch.empty_like(order).scatter_(1, order, labels))
        sizes = sizes.view(-1, 2).sum(1)  # a parent is its two halves
    return tuple(reversed(levels))
