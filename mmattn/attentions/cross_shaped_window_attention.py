"""Attention inside crossing stripes of a map, as in CSWin Transformer."""

import torch.nn as nn
from mmengine.model import BaseModule
from torch import Tensor

from mmattn.layers import LePEAttention
from mmattn.registry import MODELS

from .checks import check_heads, check_map, rename_lepe


@MODELS.register_module()
class CrossShapedWindowAttention(BaseModule):
    """Multi-head self-attention inside vertical and horizontal stripes.

    Source: CSWin, https://arxiv.org/abs/2107.00652, section 3.2. Half of the
    heads attend inside stripes as high as the map, the other half inside
    stripes as wide as the map. A depthwise convolution of the values inside
    each stripe is added to the result.

    Upstream differences: the published classifier needs a square map that
    the stripes divide. This layer follows the published backbone for dense
    prediction, which gives the same on such maps: queries, keys and values
    are zero-padded on both sides, and padding is attended to.

    Args:
        embed_dims (int): Channels of the input and of the output.
        num_heads (int): Attention heads of both orientations. Must divide
            ``embed_dims``, and be even if there are stripes.
        stripe_width (int, optional): Columns or rows of a stripe, in tokens.
            None lets all heads attend to the whole map. Defaults to 7.
        qkv_bias (bool): Add a bias in the projection. Defaults to True.
        impl (str): See ``mmattn.ops.list_implementations``. Defaults to
            ``'auto'``.
        init_cfg (dict, optional): Initialization config. Defaults to None.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        stripe_width: int | None = 7,
        qkv_bias: bool = True,
        impl: str = 'auto',
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        check_heads(self, embed_dims, num_heads)
        if stripe_width is not None and (stripe_width < 1 or num_heads % 2):
            raise ValueError(
                'CrossShapedWindowAttention expects stripe_width >= 1 and an '
                f'even num_heads, got {stripe_width=}, {num_heads=}; '
                'stripe_width=None attends to the whole map'
            )
        self.embed_dims = embed_dims
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims, bias=qkv_bias)
        self.proj = nn.Linear(embed_dims, embed_dims)
        self.lepe = LePEAttention(embed_dims, num_heads, stripe_width, impl)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, C)`` to ``(B, H, W, C)``."""
        check_map(self, x, self.embed_dims)
        return self.proj(self.lepe(self.qkv(x)))

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args
    ) -> None:
        """Accept the former name of LePE."""
        rename_lepe(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)
