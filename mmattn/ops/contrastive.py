"""A loss that separates the relevant keys of a query from the others.

Axes: B images, N tokens, d channels, R ranks.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# Most products in memory while the keys are ranked.
_PRODUCTS_AT_ONCE = 1 << 22
# Keeps the quotient finite where all negative weights vanish.
_TINY = 1e-6


def contrastive_loss(
    q: Tensor,
    k: Tensor,
    num_ranks: int = 15,
    first_negative: int = 50,
    margin: float = 1.0,
) -> Tensor:
    """Push the weights of the best keys above those of the following ones.

    Source: https://arxiv.org/abs/2201.03794, equation 12. The keys of each
    query are ranked by ``exp(q k^T)``; ``p`` is the mean of the first
    ``num_ranks`` weights, ``n`` that of as many from rank ``first_negative``
    on. The loss is the mean of ``max(0, margin - log(p / (n + 1e-6)))``.

    Keys are ranked for some queries at a time, without gradient: memory is
    linear in N, time is ``O(N^2 d)``.

    Args:
        q: Queries, ``(B, N, d)``.
        k: Keys, ``(B, N, d)``.
        num_ranks: Keys in each of the two means. Defaults to 15.
        first_negative: Rank of the first negative, from 0. Defaults to 50.
        margin: Distance that is enough. Defaults to 1.

    Returns:
        A number, in float32 or wider.

    Raises:
        ValueError: If the shapes do not fit or the tokens are fewer than the
            ranks.
    """
    if q.ndim != 3 or q.shape != k.shape:
        raise ValueError(
            'contrastive_loss expects q and k (B, N, d), got '
            f'{tuple(q.shape)} and {tuple(k.shape)}'
        )
    needed = first_negative + num_ranks
    if k.shape[1] < needed:
        raise ValueError(
            f'contrastive_loss expects at least {needed} tokens, got '
            f'{k.shape[1]}; give a larger map or lower first_negative'
        )
    wide = torch.promote_types(q.dtype, torch.float32)
    with torch.autocast(q.device.type, enabled=False):
        q, k = q.to(wide), k.to(wide)
        ranked = _ranked_keys(q.detach(), k.detach(), needed)
        p = _weights(q, k, ranked[..., :num_ranks]).mean(-1)
        n = _weights(q, k, ranked[..., first_negative:]).mean(-1)
        return F.relu(margin - (p / (n + _TINY)).log()).mean()


def _ranked_keys(q: Tensor, k: Tensor, num_ranks: int) -> Tensor:
    """The first keys of each query, best first, ``(B, N, R)`` int64."""
    B, N, _ = q.shape
    some = max(1, _PRODUCTS_AT_ONCE // (B * N))
    found = [
        (rows @ k.mT).topk(num_ranks, dim=-1, sorted=True).indices
        for rows in q.split(some, dim=1)
    ]
    return torch.cat(found, dim=1)


def _weights(q: Tensor, k: Tensor, index: Tensor) -> Tensor:
    """``exp`` of the products of each query with its keys, ``(B, N, R)``."""
    B, N, R = index.shape
    rows = index.reshape(B, N * R, 1).expand(-1, -1, k.shape[-1])
    keys = k.gather(1, rows).unflatten(1, (N, R))  # (B, N, R, d)
    return (keys @ q[..., None])[..., 0].exp()
