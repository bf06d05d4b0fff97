"""Determine backbone and arch from the names and shapes of a state dict."""

import re
from collections.abc import Iterable

from torch import Tensor

from mmattn.backbones import (
    SMT,
    AttentionPyramid,
    BOATCSWin,
    BOATSwin,
    CSWin,
    PerspectiveEncoder,
)
from mmattn.plugins import ENLCA

_CROSS_SHAPED = 'stages.0.blocks.0.attn.lepe.weight'
# Kernel of its stem. Attentions of an AttentionPyramid may have LePE as well,
# but follow a 4 x 4 stem.
_OVERLAPPING_STEM = 7
_ATTENTION = 'stages.{}.blocks.{}.attn.'
_TABLE = _ATTENTION + 'relative_position_bias_table'
_STRIDE = _ATTENTION + 'window_stride'
_BATCH_NORM_IN_STEM = 'stem.batch_norm.weight'
# Initial layer scale of archs without a name.
_LAYER_SCALE = 1e-4
# Default of WindowAttention, which named archs do not state.
_DEFAULT_WINDOW = 7


def stage_depths(backbone: Iterable[str]) -> dict[int, int]:
    """Count the blocks of each stage in a state dict in mmattn's names.

    Returns:
        Stage to the index of its last block plus one; without stages that
        have no blocks.
    """
    found = (
        re.match(r'stages\.(\d+)\.blocks\.(\d+)\.', key) for key in backbone
    )
    depths: dict[int, int] = {}
    for match in filter(None, found):
        stage, block = int(match[1]), int(match[2])
        depths[stage] = max(depths.get(stage, 0), block + 1)
    return dict(sorted(depths.items()))


def family_and_arch(
    backbone: dict[str, Tensor],
) -> tuple[str | None, str | dict | None]:
    """Determine the backbone of a state dict and its ``arch``.

    The window is part of the ``arch`` of AttentionPyramid. In BOATSwin it is
    a separate argument; tables are resized to its default. The number of
    heads of CSWin, BOATCSWin and SMT does not show in their tensors, so only
    their named archs are recognized (SMT with any depths and layer scale).

    Args:
        backbone: Tensors of a backbone, in mmattn's names.

    Returns:
        The class name and the arch: a name, or a dict of sizes without a
        name; for ENLCA a dict of its arguments. (None, None) for backbones
        other than those with window or cross-shaped attention in all blocks
        and SMT. Every second window is assumed to be shifted, as in Swin.
    """
    for key, rows in backbone.items():
        if key.endswith('attn.projection') and '.blocks.' not in key:
            return ENLCA.__name__, _enlca_sizes(backbone, key, rows)
    if 'integrator.norm.weight' in backbone:
        return PerspectiveEncoder.__name__, _perspective_arch(backbone)
    depths = tuple(stage_depths(backbone).values())
    stem = backbone.get('stem.proj.weight')
    if (
        _CROSS_SHAPED in backbone
        and stem is not None
        and stem.shape[-1] == _OVERLAPPING_STEM
    ):
        in_feature_space = any('.feature_attn.' in key for key in backbone)
        family = BOATCSWin if in_feature_space else CSWin
        sizes = dict(embed_dims=stem.shape[0], depths=depths)
        return family.__name__, _named(family, sizes)
    if _BATCH_NORM_IN_STEM in backbone:
        return SMT.__name__, _smt_arch(backbone, depths)
    places = [(i, j) for i, depth in enumerate(depths) for j in range(depth)]
    tabled = [_TABLE.format(*place) in backbone for place in places]
    if not tabled or not all(tabled):
        return None, None
    tables = [backbone[_TABLE.format(i, 0)] for i in range(len(depths))]
    sizes = dict(
        embed_dims=backbone['stem.proj.weight'].shape[0],
        depths=depths,
        num_heads=tuple(table.shape[1] for table in tables),
    )
    family = BOATSwin
    if not any('.feature_attn.' in key for key in backbone):
        family = AttentionPyramid
        sizes['attentions'] = tuple(
            _windows(table, backbone.get(_STRIDE.format(i, 0)))
            for i, table in enumerate(tables)
        )
    return family.__name__, _named(family, sizes) or sizes


def _named(family: type, sizes: dict) -> str | None:
    """The first arch of a backbone that has these sizes."""
    return next(
        (
            name
            for name, row in family.arch_zoo.items()
            if sizes.items() <= row.items()
        ),
        None,
    )


def _smt_arch(
    backbone: dict[str, Tensor], depths: tuple[int, ...]
) -> str | dict | None:
    hidden = [
        backbone[f'stages.{i}.blocks.0.mlp.fc1.weight']
        for i in range(len(depths))
    ]
    widths = dict(
        embed_dims=backbone['stem.proj.weight'].shape[0],
        mlp_ratios=tuple(w.shape[0] / w.shape[1] for w in hidden),
        stem_kernel=backbone['stem.conv.weight'].shape[-1],
    )
    alike = _named(SMT, widths)
    if alike is None:
        return None
    scaled = 'stages.0.blocks.0.gamma1.weight' in backbone
    scale = _LAYER_SCALE if scaled else None
    arch = dict(SMT.arch_zoo[alike], depths=depths, layer_scale=scale)
    return _named(SMT, arch) or arch


def _perspective_arch(backbone: dict[str, Tensor]) -> str | None:
    fc1 = backbone['integrator.layers.0.fc1.weight']
    sizes = dict(
        embed_dims=len(backbone['stages.0.conv.fuse.bn.weight']),
        depths=(0, 0, *stage_depths(backbone).values()),
        integrator_dims=fc1.shape[1],
        integrator_hidden_dims=fc1.shape[0],
    )
    return _named(PerspectiveEncoder, sizes)


def _enlca_sizes(
    backbone: dict[str, Tensor], key: str, rows: Tensor
) -> dict[str, int]:
    q = backbone[key.replace('.projection', '.q.weight')]
    return dict(
        in_channels=q.shape[1],
        reduction=q.shape[1] // q.shape[0],
        num_features=rows.shape[0],
    )


def _windows(table: Tensor, stride: Tensor | None) -> tuple[dict, ...]:
    """Configs of a stage's attentions, of ``((2M - 1)^2, h)`` tables."""
    window = (round(len(table) ** 0.5) + 1) // 2
    size = {} if window == _DEFAULT_WINDOW else dict(window_size=window)
    if stride is not None:
        sliding = dict(type='mmattn.SlidingWindowAttention', **size)
        return (dict(sliding, stride=int(stride)),)
    plain = dict(type='mmattn.WindowAttention', **size)
    return plain, dict(plain, with_shift=True)
