"""Softmax attention approximated by positive random features, in O(N).

Axes: N queries, L keys, d channels of a key, e channels of a value, m random
features; ``*`` any leading axes (images, heads).
"""

import math

import torch
from torch import Tensor

from .tracing import without_autocast

# Added to every feature: a query has a weight even if all others vanish.
_LEAST = 1e-4


def random_feature_attention(
    q: Tensor, k: Tensor, v: Tensor, projection: Tensor, impl: str = 'auto'
) -> Tensor:
    """Mix the values by inner products of positive random features.

    Source: https://arxiv.org/abs/2009.14794, section 2.3, and
    https://arxiv.org/abs/2201.03794, equation 8:
    ``phi(u) = exp(W u - |u|^2 / 2) + 1e-4`` and
    ``out = phi(q) (phi(k)^T v) / (phi(q) sum_l phi(k_l))``. In the mean over
    Gaussian rows of ``W`` (and but for the 1e-4), ``phi(q) phi(k)^T`` is
    ``m exp(q k^T)``. No ``N x L`` matrix is formed.

    Args:
        q: Queries, ``(*, N, d)``.
        k: Keys, ``(*, L, d)``.
        v: Values, ``(*, L, e)``.
        projection: The rows ``W``, ``(m, d)``, see
            :func:`orthogonal_projection`.
        impl: ``'auto'`` or ``'reference'``, the only one. Defaults to
            ``'auto'``.

    Returns:
        ``(*, N, e)`` in the dtype of ``v``; exponentials and sums run in
        float32 or wider.

    Raises:
        ValueError: If the shapes do not fit, or ``impl`` is another name.
    """
    if impl not in ('auto', 'reference'):
        raise ValueError(
            f'random_feature_attention has no implementation {impl!r}; impl '
            "must be 'auto' or 'reference'"
        )
    fits = (
        q.ndim == k.ndim == v.ndim >= 2
        and q.shape[-1] == k.shape[-1]
        and k.shape[:-1] == v.shape[:-1]
        and projection.ndim == 2
        and projection.shape[1] == q.shape[-1]
    )
    if not fits:
        raise ValueError(
            'random_feature_attention expects q (*, N, d), k (*, L, d), '
            f'v (*, L, e) and projection (m, d), got q {tuple(q.shape)}, '
            f'k {tuple(k.shape)}, v {tuple(v.shape)} and projection '
            f'{tuple(projection.shape)}'
        )
    wide = torch.promote_types(v.dtype, torch.float32)
    projection = projection.to(wide)
    # Autocast would narrow the products again.
    with without_autocast(v):
        phi_q = _positive_features(q.to(wide), projection, dims=(-1,))
        phi_k = _positive_features(k.to(wide), projection, dims=(-2, -1))
        s = phi_k.mT @ v.to(wide)  # (*, m, e)
        z = phi_k.sum(dim=-2).unsqueeze(-1)  # (*, m, 1)
        out = (phi_q @ s) / (phi_q @ z)  # (*, N, e)
    return out.to(v.dtype)


def _positive_features(
    u: Tensor, projection: Tensor, dims: tuple[int, ...]
) -> Tensor:
    """``(*, N, m)`` up to a factor that is constant along ``dims``.

    The factor cancels in the quotient and prevents overflow.
    """
    exponents = u @ projection.mT - u.square().sum(-1, keepdim=True) / 2
    peak = exponents.detach().amax(dims, keepdim=True)
    peak = peak.clamp(min=math.log(_LEAST))
    return (exponents - peak).exp() + _LEAST * (-peak).exp()


def orthogonal_projection(num_features: int, dims: int, seed: int) -> Tensor:
    """Random Gaussian rows that are orthogonal to each other.

    Source: https://arxiv.org/abs/2009.14794, section 2.4. If there are more
    rows than channels, each run of ``dims`` rows is orthogonal.

    Args:
        num_features: Rows m.
        dims: Channels d.
        seed: The same seed gives the same rows, in every process.

    Returns:
        ``(m, d)`` float32, on the CPU.

    Raises:
        ValueError: If ``num_features`` or ``dims`` is below 1.
    """
    if num_features < 1 or dims < 1:
        raise ValueError(
            'orthogonal_projection expects num_features and dims >= 1, got '
            f'{num_features=}, {dims=}'
        )
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(
            shape, generator=generator, dtype=torch.float64, device='cpu'
        )

    directions = []
    for _ in range(math.ceil(num_features / dims)):
        basis, triangle = torch.linalg.qr(normal(dims, dims))
        # The signs make the directions uniform, see
        # https://arxiv.org/abs/math-ph/0609050, section 5.
        directions.append((basis * triangle.diagonal().sign()).T)
    lengths = normal(num_features, dims).norm(dim=1, keepdim=True)
    rows = lengths * torch.cat(directions)[:num_features]
    return rows.float()
