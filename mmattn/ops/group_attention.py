"""Attention inside groups of tokens, by products that stay in the caches.

What windows, stripes and clusters do on a CPU once their queries, keys and
values lie group after group, and the gradients of it.

Axes: P groups, N queries and L keys of a group, d channels.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .compiling import is_compiling, is_transforming
from .implementations import Reason

NEEDS = 'a CPU; float32 or float64; no compiler or transform'
# Beyond, PyTorch's fused attention is as fast, and keeps no weights.
MOST_KEYS = 160
# Scores that fit into the caches of a core, and of its neighbour, are written
# and read there; twice the time goes by where they do not.
_MOST_SCORES = 2**19
# A power of two takes a third of the time of one of e.
LOG2_E = 1 / math.log(2)

Hide = Callable[[Tensor, int], None]


def refuse_groups(x: Tensor, num_keys: int, most: int = MOST_KEYS) -> Reason:
    """Why :func:`attend` cannot take ``x`` and groups so large, or None."""
    if is_compiling():
        return 'a compiler fuses the definition by itself'
    if is_transforming():
        return 'tracers and transforms follow the definition only'
    if x.device.type != 'cpu':
        return f'it runs on a CPU, got {x.device}'
    if x.dtype not in (torch.float32, torch.float64):
        return f'it takes float32 or float64, got {x.dtype}'
    if num_keys > most:
        return f'it takes up to {most} keys a group, got {num_keys}'
    return None


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    with_weights: bool,
    bias: Tensor | None = None,
    hide: Hide | None = None,
    period: int = 1,
) -> Tensor | None:
    """Let every query attend to the keys of its group.

    Args:
        q: Queries times the scale times ``LOG2_E``, ``(P, N, d)``.
        k: Keys, ``(P, L, d)``.
        v: Values, ``(P, L, d)``.
        out: Where the result goes, ``(P, N, d)``.
        with_weights: Whether :func:`gradients` will be asked for.
        bias: Added to the scores, the first axis along the groups and as
            often as it takes, ``(p, N, L)`` or ``(p, 1, L)``. Defaults to
            None, no bias.
        hide: Called with the scores of some groups, ``(*, N, L)``, and the
            number of groups before them; sets to minus infinity, in place,
            what a query must not attend to. Defaults to None, there is none.
        period: The groups that ``hide`` is called with, and those before, are
            a multiple of this number, itself one of p. Defaults to 1.

    Returns:
        Weights of the keys, ``(P, N, L)``, if asked for.
    """
    P, N, L = len(q), q.shape[1], k.shape[1]
    step = _groups_at_a_time(N * L, period)
    kept = q.new_empty(P if with_weights else min(P, step), N, L)
    if bias is not None:
        bias = bias * LOG2_E
    for start in range(0, P, step):
        chunk = slice(start, start + step)
        scores = kept[chunk] if with_weights else kept[: P - start]
        torch.bmm(q[chunk], k[chunk].mT, out=scores)
        if bias is not None:
            scores.unflatten(0, (-1, len(bias))).add_(bias)
        if hide is not None:
            hide(scores, start)
        torch.bmm(_softmax_(scores), v[chunk], out=out[chunk])
    return kept if with_weights else None


def _softmax_(scores: Tensor) -> Tensor:
    """Turn scores times ``LOG2_E`` into weights, in place."""
    scores -= scores.amax(-1, keepdim=True)
    torch.exp2(scores, out=scores)
    return scores.div_(scores.sum(-1, keepdim=True))


def gradients(
    weights: Tensor | None,
    inputs: tuple[Tensor, Tensor, Tensor],
    grad: Tensor,
    grads: tuple[Tensor, Tensor, Tensor],
    grad_bias: Tensor | None = None,
    period: int = 1,
) -> None:
    """Gradients of :func:`attend`.

    Args:
        weights: That it returned, ``(P, N, L)``; None to compute them again,
            where there was neither ``bias`` nor ``hide``.
        inputs: Its ``q``, ``k`` and ``v``.
        grad: Gradient of the result, ``(P, N, d)``.
        grads: Where the gradients of queries times scale, of keys and of
            values go.
        grad_bias: What the gradient of the bias is added to. Defaults to
            None, not asked for.
        period: As before. Defaults to 1.
    """
    P, N, L = len(grad), grad.shape[1], inputs[1].shape[1]
    step = _groups_at_a_time(N * L, period)
    for start in range(0, P, step):
        chunk = slice(start, start + step)
        q, k, v = (x[chunk] for x in inputs)
        grad_q, grad_k, grad_v = (x[chunk] for x in grads)
        grad_out = grad[chunk]
        w = _softmax_(q @ k.mT) if weights is None else weights[chunk]
        torch.bmm(w.mT, grad_out, out=grad_v)
        scores = grad_out @ v.mT
        torch.ops.aten._softmax_backward_data.out(
            scores, w, -1, w.dtype, grad_input=scores
        )
        torch.bmm(scores, k, out=grad_q)
        # The queries still hold the factor of the powers of two.
        torch.baddbmm(
            grad_k, scores.mT, q, beta=0, alpha=1 / LOG2_E, out=grad_k
        )
        if grad_bias is not None:
            scores = scores.unflatten(0, (-1, len(grad_bias))).sum(0)
            grad_bias += scores.sum_to_size(grad_bias.shape)


def _groups_at_a_time(num_scores: int, period: int) -> int:
    return max(1, _MOST_SCORES // (period * num_scores)) * period


def refuse_create_graph(impl: str) -> None:
    """Raise RuntimeError where gradients of gradients are asked for.

    Silence would leave the layer out of a gradient penalty.
    """
    if torch.is_grad_enabled():
        raise RuntimeError(
            f'impl {impl!r} expects a backward pass without create_graph, '
            "got create_graph=True; force 'reference', see "
            'mmattn.ops.force_implementation'
        )
