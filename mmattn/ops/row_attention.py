"""Attention inside groups of tokens that lie anywhere in a batch.

Windows, stripes and clusters differ in which tokens make up a group. Here a
group is a list of rows, so that no map is padded, rolled, cut or permuted:
queries, keys and values are copied once, from where the projection left them
to where a batched product reads them, and their gradients once on the way
back. On a CPU these copies cost as much as the products themselves.

Axes: B batch, T tokens of an image, h heads, d channels of a head, P groups,
each of one head of one image, N queries and L keys of a group.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from .compiling import is_compiling, is_transforming
from .implementations import Reason

NEEDS = 'a CPU; float32 or float64; no compiler or transform'
# Beyond, PyTorch's fused attention is as fast, and does not hold the scores.
_MOST_KEYS = 160
# Scores that fit into the caches of a core, and of its neighbour, are written
# and read there; twice the time goes by where they do not.
_MOST_SCORES = 2**19


Hide = Callable[[Tensor, int], None]


class RowGroups(NamedTuple):
    """Which tokens attend to which, for all heads of all images.

    Head j of token t, counted through the batch, is row ``t * h + j``. A slot
    is a place in a group, counted through all groups. A part is a run of
    groups of one size; there may be several.

    Attributes:
        num_heads: Heads h.
        query_shapes: P and N of each part.
        key_shapes: P and L of each part.
        queries: Row of each query slot.
        keys: Row of each key slot.
        query_slots: The query slot of each row, ``(B * T * h, )``.
        key_slots: A key slot of each row, ``(B * T * h, )``.
        more_key_slots: Another key slot of each row, or the number of key
            slots where it has one only. Defaults to None, all have one only.
        empty: Whether a query slot stands for nothing. Defaults to None, none
            does.
    """

    num_heads: int
    query_shapes: list[tuple[int, int]]
    key_shapes: list[tuple[int, int]]
    queries: Tensor
    keys: Tensor
    query_slots: Tensor
    key_slots: Tensor
    more_key_slots: Tensor | None = None
    empty: Tensor | None = None


def refuse_rows(x: Tensor, num_keys: int) -> Reason:
    """Why :func:`row_attention` cannot take ``x`` and groups so large."""
    if is_compiling():
        return 'a compiler fuses the definition by itself'
    if is_transforming():
        return 'tracers and transforms follow the definition only'
    if x.device.type != 'cpu':
        return f'it runs on a CPU, got {x.device}'
    if x.dtype not in (torch.float32, torch.float64):
        return f'it takes float32 or float64, got {x.dtype}'
    if num_keys > _MOST_KEYS:
        return f'it takes up to {_MOST_KEYS} keys a group, got {num_keys}'
    return None


def row_attention(
    qkv: Tensor,
    groups: RowGroups,
    scale: float,
    bias: Tensor | None = None,
    hide: Hide | None = None,
    period: int = 1,
) -> Tensor:
    """Let every query attend to the keys of its group.

    Args:
        qkv: Queries, keys and values side by side, ``(B, *, 3 * h * d)``.
        groups: Who attends to whom.
        scale: Factor of the products.
        bias: Added to the scores, the first axis along the groups and as
            often as it takes, ``(p, N, L)`` or ``(p, 1, L)``. Defaults to
            None, no bias.
        hide: Called with the scores of some groups, ``(*, N, L)``, and the
            number of groups before them; sets to minus infinity, in place,
            what a query must not attend to. Defaults to None, there is none.
        period: The groups that ``hide`` is called with, and those before, are
            a multiple of this number, itself one of p. Defaults to 1.

    Returns:
        ``(B, *, h * d)``. Its gradients have no gradients themselves: a
        backward pass with ``create_graph`` raises a ``RuntimeError``.
    """
    rows = qkv.reshape(-1, qkv.shape[-1] // (3 * groups.num_heads))
    # Autocast would narrow the products, whatever the inputs' dtype.
    with torch.autocast('cpu', enabled=False):
        out = _RowAttention.apply(rows, bias, groups, scale, hide, period)
    return out.view(*qkv.shape[:-1], qkv.shape[-1] // 3)


class _RowAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        rows: Tensor,
        bias: Tensor | None,
        groups: RowGroups,
        scale: float,
        hide: Hide | None,
        period: int,
    ) -> Tensor:
        h = groups.num_heads
        # Rows of the input come in threes: h queries, h keys, h values.
        queries = groups.queries + 2 * h * (groups.queries // h)
        keys = groups.keys + 2 * h * (groups.keys // h) + h
        q = rows.index_select(0, queries).mul_(scale)
        k = rows.index_select(0, keys)
        v = rows.index_select(0, keys + h)
        out = torch.empty_like(q)
        weights = []
        for i, (P, N) in enumerate(groups.query_shapes):
            q_i, out_i = (_part(x, groups.query_shapes, i) for x in (q, out))
            k_i, v_i = (_part(x, groups.key_shapes, i) for x in (k, v))
            L = k_i.shape[1]
            step = max(1, _MOST_SCORES // (period * N * L)) * period
            with_grad = any(ctx.needs_input_grad)
            kept = q.new_empty(P if with_grad else min(P, step), N, L)
            for start in range(0, P, step):
                chunk = slice(start, start + step)
                scores = kept[chunk] if with_grad else kept[: P - start]
                torch.bmm(q_i[chunk], k_i[chunk].mT, out=scores)
                if bias is not None:
                    scores.unflatten(0, (-1, len(bias))).add_(bias)
                if hide is not None:
                    hide(scores, start)
                torch.softmax(scores, -1, out=scores)
                torch.bmm(scores, v_i[chunk], out=out_i[chunk])
            weights.append(kept)
        ctx.save_for_backward(q, k, v, bias, *weights)
        ctx.groups, ctx.scale = groups, scale
        return out.index_select(0, groups.query_slots)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            # Silence would leave this layer out of a gradient penalty.
            raise RuntimeError(
                "impl 'rows' expects a backward pass without create_graph, "
                "got create_graph=True; force 'reference', see "
                'mmattn.ops.force_implementation'
            )
        # As in the forward pass.
        with torch.autocast('cpu', enabled=False):
            return _RowAttention._backward(ctx, grad)

    @staticmethod
    def _backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        groups = ctx.groups
        q, k, v, bias, *weights = ctx.saved_tensors
        grad = grad.index_select(0, groups.queries)
        if groups.empty is not None:
            grad[groups.empty] = 0
        # Of the query slots; of the key slots and of none; of their values.
        counts = [len(q), len(k) + 1, len(v) + 1]
        grads = q.new_empty(sum(counts), q.shape[1])
        grad_q, grad_k, grad_v = grads.split(counts)
        grad_k[-1] = grad_v[-1] = 0
        grad_bias = None
        if ctx.needs_input_grad[1]:
            grad_bias = torch.zeros_like(bias)
        for i, w in enumerate(weights):
            q_i, grad_i, grad_q_i = (
                _part(x, groups.query_shapes, i) for x in (q, grad, grad_q)
            )
            k_i, v_i, grad_k_i, grad_v_i = (
                _part(x, groups.key_shapes, i)
                for x in (k, v, grad_k[:-1], grad_v[:-1])
            )
            torch.bmm(w.mT, grad_i, out=grad_v_i)
            scores = grad_i @ v_i.mT
            torch.ops.aten._softmax_backward_data.out(
                scores, w, -1, w.dtype, grad_input=scores
            )
            torch.bmm(scores, k_i, out=grad_q_i)
            torch.bmm(scores.mT, q_i, out=grad_k_i)
            if grad_bias is not None:
                period = scores.unflatten(0, (-1, len(bias))).sum(0)
                grad_bias += period.sum_to_size(bias.shape)
        grad_q *= ctx.scale
        return (
            _to_rows(grads, counts, groups),
            grad_bias,
            None,
            None,
            None,
            None,
        )


def _part(x: Tensor, shapes: list[tuple[int, int]], index: int) -> Tensor:
    """The ``index``-th of the parts that follow each other in ``x``."""
    start = sum(P * n for P, n in shapes[:index])
    P, n = shapes[index]
    return x[start : start + P * n].view(P, n, x.shape[1])


def _to_rows(grads: Tensor, counts: list[int], groups: RowGroups) -> Tensor:
    """Bring the gradients of all slots back to the rows of the input."""
    h = groups.num_heads
    first_key, first_value = counts[0], counts[0] + counts[1]
    slots = groups.key_slots
    slots = (groups.query_slots, slots + first_key, slots + first_value)
    slots = torch.stack([x.view(-1, h) for x in slots], dim=1)  # (B*T, 3, h)
    rows = grads.index_select(0, slots.flatten())
    slots = groups.more_key_slots
    if slots is not None:
        slots = (slots + first_key, slots + first_value)
        slots = torch.stack([x.view(-1, h) for x in slots], dim=1)
        more = grads.index_select(0, slots.flatten())
        keys_and_values = rows.unflatten(0, (-1, 3, h))[:, 1:]
        keys_and_values += more.view_as(keys_and_values)
    return rows
