"""Attention among similar tokens, near or far: BOAT."""

import torch.nn as nn
from mmengine.model import BaseModule
from torch import Tensor

from mmattn.ops import balanced_clusters, cluster_attention
from mmattn.registry import MODELS

from .checks import check_heads, check_map, rename_lepe


@MODELS.register_module()
class FeatureSpaceAttention(BaseModule):
    """Multi-head self-attention inside balanced clusters of similar tokens.

    Source: BOAT, https://arxiv.org/abs/2201.13027, section 3.2. Every forward
    pass clusters each head of each image by its queries, without gradient. A
    3x3 depthwise convolution of the values on the map is added to the result.

    Upstream differences: the published code needs a square map of 49 times a
    power of two tokens; this layer takes any map, and cluster sizes differ by
    at most one. If the map is one cluster, the published BOAT-CSWin attends
    to the next image of the batch; here images are independent.

    Args:
        embed_dims (int): Channels of the input and of the output.
        num_heads (int): Attention heads. Must divide ``embed_dims``.
        cluster_size (int): Minimum tokens of a cluster, which has less than
            twice as many. Defaults to 49.
        overlap (int): Tokens of the sibling cluster that a cluster of
            ``cluster_size`` also attends to. Defaults to 20.
        iterations (int): Refinements of the centroids. Defaults to 2.
        temperature (float): Sharpness of the assignment to the centroids.
            Defaults to 100.
        with_shared_clusters (bool): Cluster once for all heads, by all
            queries. Defaults to False.
        qkv_bias (bool): Add a bias in the projection. Defaults to True.
        scale (float, optional): Factor of the query-key products. Weights of
            the published BOAT-CSWin need 1.0. Defaults to None,
            ``head_dims ** -0.5``.
        impl (str): Implementation of the clustering and of the attention, see
            ``mmattn.ops.list_implementations``. Defaults to ``'auto'``.
        init_cfg (dict, optional): Initialization config. Defaults to None.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        cluster_size: int = 49,
        overlap: int = 20,
        iterations: int = 2,
        temperature: float = 100.0,
        with_shared_clusters: bool = False,
        qkv_bias: bool = True,
        scale: float | None = None,
        impl: str = 'auto',
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        check_heads(self, embed_dims, num_heads)
        if not 0 <= overlap <= cluster_size or cluster_size < 1:
            raise ValueError(
                'FeatureSpaceAttention expects 0 <= overlap <= cluster_size '
                f'and cluster_size >= 1, got {overlap=}, {cluster_size=}'
            )
        self.embed_dims = embed_dims
        self.num_heads = num_heads
        self.cluster_size = cluster_size
        self.overlap = overlap
        self.iterations = iterations
        self.temperature = temperature
        self.with_shared_clusters = with_shared_clusters
        self.scale = scale
        self.impl = impl
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims, bias=qkv_bias)
        self.proj = nn.Linear(embed_dims, embed_dims)
        self.lepe = nn.Conv2d(
            embed_dims, embed_dims, 3, padding=1, groups=embed_dims
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, C)`` to ``(B, H, W, C)``."""
        check_map(self, x, self.embed_dims)
        B, H, W, C = x.shape
        qkv = self.qkv(x)
        out = cluster_attention(
            qkv.flatten(1, 2),
            self.cluster(qkv),
            self.cluster_size,
            self.overlap,
            self.scale,
            self.impl,
        )
        v = qkv[..., 2 * C :].permute(0, 3, 1, 2)
        lepe = self.lepe(v).permute(0, 2, 3, 1)
        return self.proj(out.view(B, H, W, C) + lepe)

    def cluster(self, qkv: Tensor) -> Tensor:
        """Order the tokens by cluster, for each head of each image.

        Args:
            qkv (Tensor): The projected map, ``(B, H, W, 3 * C)``.

        Returns:
            Tensor: ``(B, h, N)`` int64, see ``mmattn.ops.balanced_clusters``.
        """
        q = qkv.detach()[..., : qkv.shape[-1] // 3].flatten(1, 2)  # (B, N, C)
        parts = 1 if self.with_shared_clusters else self.num_heads
        q = q.unflatten(-1, (parts, -1)).transpose(1, 2)  # (B, parts, N, *)
        args = self.cluster_size, self.iterations, self.temperature
        order = balanced_clusters(q, *args, self.impl)
        return order.expand(-1, self.num_heads, -1)

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args
    ) -> None:
        """Accept the former name of LePE."""
        rename_lepe(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return (
            f'num_heads={self.num_heads}, cluster_size={self.cluster_size}, '
            f'overlap={self.overlap}, scale={self.scale}, impl={self.impl!r}'
        )
