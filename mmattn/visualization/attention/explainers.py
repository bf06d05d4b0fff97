"""Explanations of mmattn's attention layers."""

from collections.abc import Sequence

import torch
from torch import Tensor

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
from .hooked_calls import attention_rows, changed_output, recorded

# The 3x3 convolution of the values that is added to the attended values.
_LEPE = ('lepe.weight', 'lepe.bias')
_LOCAL_CONV = ('local_conv.weight', 'local_conv.bias')
Inputs = tuple[Tensor, ...]


@register_explanation(WindowAttention)
def _explain_windows(
    layer: WindowAttention, inputs: Inputs, tokens: Sequence[Token]
) -> list[Explanation]:
    """Also explains SlidingWindowAttention, a subclass."""
    return [_rows_with_reach(layer, inputs, tokens, zeroed=())]


@register_explanation(CrossShapedWindowAttention)
def _explain_stripes(
    layer: CrossShapedWindowAttention, inputs: Inputs, tokens: Sequence[Token]
) -> list[Explanation]:
    return [_rows_with_reach(layer, inputs, tokens, _LEPE)]


@register_explanation(FeatureSpaceAttention)
def _explain_clusters(
    layer: FeatureSpaceAttention, inputs: Inputs, tokens: Sequence[Token]
) -> list[Explanation]:
    rows = _rows_with_reach(layer, inputs, tokens, _LEPE)
    with torch.no_grad(), recorded(layer.qkv) as record:
        layer(*inputs)
        order = layer.cluster(record['output'])[0]  # (h, N)
    levels = split_levels(order, layer.cluster_size)
    size = inputs[0].shape[1:3]
    clusters = Clusters(tuple(x.unflatten(1, size) for x in levels))
    return [clusters, rows] if levels else [rows]


@register_explanation(MultiHeadSelfAttention)
def _explain_global(
    layer: MultiHeadSelfAttention, inputs: Inputs, tokens: Sequence[Token]
) -> list[Explanation]:
    args = (layer, inputs, tokens, layer.qkv, layer.proj, _LOCAL_CONV)
    return [AttentionRows(attention_rows(*args))]


@register_explanation(EfficientNonLocalAttention)
def _explain_random_features(
    layer: EfficientNonLocalAttention, inputs: Inputs, tokens: Sequence[Token]
) -> list[Explanation]:
    """Weights ``phi(q) phi(k)``, divided by their sum over the keys."""
    return [AttentionRows(attention_rows(layer, inputs, tokens, layer.v))]


@register_explanation(KeyValueAttention)
def _explain_key_values(
    layer: KeyValueAttention, inputs: Inputs, tokens: Sequence[Token]
) -> list[Explanation]:
    """Needs keys that form a map; other tokens have no position to show."""
    weights = attention_rows(layer, inputs, tokens, layer.v_proj, layer.o_proj)
    return [AttentionRows(weights)] if weights.ndim == 4 else []


@register_explanation(ScaleAwareModulation)
def _explain_modulation(
    layer: ScaleAwareModulation, inputs: Inputs, tokens: Sequence[Token]
) -> list[Explanation]:
    with (
        torch.no_grad(),
        changed_output(layer.v, torch.ones_like),
        recorded(layer.local_convs) as convs,
        recorded(layer.proj) as record,
    ):
        # With all values 1, the input of proj is the modulator.
        layer(*inputs)
    # Each group of `num_heads` channels has one channel of every scale.
    scales = convs['output'][0].unflatten(-1, (-1, layer.num_heads))
    return [
        Modulation(
            layer.local_convs.kernel_sizes,
            scales.abs().mean(2).movedim(-1, 0),
            record['input'][0].abs().mean(-1),
        )
    ]


def _rows_with_reach(
    layer: WindowAttention | CrossShapedWindowAttention,
    inputs: Inputs,
    tokens: Sequence[Token],
    zeroed: Sequence[str],
) -> AttentionRows:
    H, W = inputs[0].shape[1:3]
    args = (layer, inputs, tokens, layer.qkv, layer.proj, zeroed)
    # Without keys, every token within reach has a weight above 0.
    reach = attention_rows(*args, with_keys=False) > 0
    # Windows are padded at the bottom and right before the projection.
    rows = attention_rows(*args)[..., :H, :W]
    return AttentionRows(rows, reach[..., :H, :W])


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
