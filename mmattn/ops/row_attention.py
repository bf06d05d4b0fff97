"""Attention inside groups of tokens that lie anywhere in a batch.

Windows, stripes and clusters differ in which tokens make up a group. Here a
group is a list of rows, so that no map is padded, rolled, cut or permuted:
queries, keys and values are copied once, from where the projection left them
to where a batched product reads them, and their gradients once on the way
back. On a CPU these copies cost as much as the products themselves.

Axes: B batch, T tokens of an image, h heads, d channels of a head, P groups,
each of one head of one image, N queries and L keys of a group.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from .group_attention import (
    LOG2_E,
    Hide,
    attend,
    gradients,
    refuse_create_graph,
)


class RowGroups(NamedTuple):
    """Which tokens attend to which, for all heads of all images.

    Head j of token t, counted through the batch, is row ``t * h + j``. A slot
    is a place in a group, counted through all groups. A part is a run of
    groups of one size; there may be several. Indices are int32: rows are
    copied by them in half the time that int64 takes.

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


# What the way back needs.
_TABLES = (
    'queries',
    'query_slots',
    'key_slots',
    'more_key_slots',
    'empty',
)


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
        bias: Added to the scores, see :func:`.group_attention.attend`.
            Defaults to None, no bias.
        hide: See there. Defaults to None, nothing is hidden.
        period: See there. Defaults to 1.

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
        q = rows.index_select(0, queries).mul_(scale * LOG2_E)
        k = rows.index_select(0, keys)
        v = rows.index_select(0, keys + h)
        out = torch.empty_like(q)
        with_grad = any(ctx.needs_input_grad)
        weights = []
        for i in range(len(groups.query_shapes)):
            q_i, out_i = (_part(x, groups.query_shapes, i) for x in (q, out))
            k_i, v_i = (_part(x, groups.key_shapes, i) for x in (k, v))
            weights.append(
                attend(q_i, k_i, v_i, out_i, with_grad, bias, hide, period)
            )
        tables = [getattr(groups, name) for name in _TABLES]
        ctx.save_for_backward(q, k, v, bias, *tables, *weights)
        ctx.groups = groups._replace(keys=None, **dict.fromkeys(_TABLES))
        ctx.scale, ctx.period = scale, period
        return out.index_select(0, groups.query_slots)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_create_graph('rows')
        # As in the forward pass.
        with torch.autocast('cpu', enabled=False):
            return _RowAttention._backward(ctx, grad)

    @staticmethod
    def _backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, bias, *kept = ctx.saved_tensors
        tables, weights = kept[: len(_TABLES)], kept[len(_TABLES) :]
        groups = ctx.groups._replace(**dict(zip(_TABLES, tables)))
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
            gradients(
                w,
                (q_i, k_i, v_i),
                grad_i,
                (grad_q_i, grad_k_i, grad_v_i),
                grad_bias,
                ctx.period,
            )
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
