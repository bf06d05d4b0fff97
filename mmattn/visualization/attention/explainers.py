"""Explanations of mmattn's attention layers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

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
    (x,) = inputs
    H, W = x.shape[1:3]
    sizes = torch.tensor(cluster_sizes(H * W, layer.cluster_size))
    labels = torch.arange(len(sizes)).repeat_interleave(sizes).to(x.device)
    with torch.no_grad():
        order = layer.cluster(layer.qkv(x))[0]  # (h, N), tokens by cluster
    last = torch.empty_like(order).scatter_(1, order, labels.expand_as(order))
    last = last.unflatten(1, (H, W))
    # A group and its sibling are the halves of group `label // 2` before.
    bisections = len(sizes).bit_length() - 1
    levels = tuple(last >> i for i in reversed(range(bisections)))
    return [Clusters(levels), *rows] if levels else rows


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
    """Keys that do not form a map have no position to show."""
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


def count_heads(layer: nn.Module) -> int:
    """The ``num_heads`` of a layer or of its first child that has one."""
    return next(
        m.num_heads for m in layer.modules() if hasattr(m, 'num_heads')
    )


def attention_rows(
    layer: nn.Module,
    inputs: Sequence[Tensor],
    tokens: Sequence[Token],
    values: nn.Module,
    proj: nn.Module | None = None,
    zeroed: Sequence[str] = (),
    with_keys: bool = True,
) -> Tensor:
    """Attention weights of a few tokens.

    The output of attention is linear in the values, separately in each head.
    So the weights are the derivative of a token's output with respect to the
    values. The layer itself is called, with its windows, masks and clusters;
    no second implementation can differ from it.

    Args:
        layer: The layer in evaluation mode.
        inputs: Arguments of the call, for one image.
        tokens: ``(row, column)`` on the output map.
        values: Child that returns the values ``(1, *, C)``, or queries, keys
            and values concatenated, ``(1, *, 3 * C)``.
        proj: Child that takes the attended values ``(1, H, W, C)``. Defaults
            to None: the layer returns them.
        zeroed: Names of parameters to replace by zeros: those of terms that
            are added to the attended values. Defaults to none.
        with_keys: If False, the keys next to the values are replaced by
            zeros, so only biases and masks matter. Defaults to True.

    Returns:
        ``(t, h, *)``, where ``*`` are the axes of the values between batch
        and channels.
    """
    zeros = {name: 0 * layer.get_parameter(name) for name in zeroed}
    C = inputs[0].shape[-1]
    heads = count_heads(layer)
    leaves, calls = [], []

    def make_leaf(_: nn.Module, args: tuple, out: Tensor) -> Tensor:
        *before, v = out.detach().split(C, dim=-1)
        if not with_keys:
            before[1] = torch.zeros_like(before[1])
        leaves.append(v.requires_grad_())
        return torch.cat((*before, v), dim=-1)

    with (
        torch.enable_grad(),
        values.register_forward_hook(make_leaf),
        (proj or layer).register_forward_hook(lambda *x: calls.append(x)),
    ):
        functional_call(layer, zeros, tuple(inputs))
        _, (attended, *_), result = calls[-1]
        out = result if proj is None else attended  # (1, H, W, C)
        out = out[0].unflatten(-1, (heads, -1))[..., 0]  # (H, W, h)
        rows = [
            torch.autograd.grad(out[token].sum(), leaves, retain_graph=True)
            for token in tokens
        ]
    rows = torch.cat([row for (row,) in rows])  # (t, *, C)
    rows = rows.unflatten(-1, (heads, -1))[..., 0]
    return rows.movedim(-1, 1)
