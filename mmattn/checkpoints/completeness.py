"""Check whether a converted checkpoint holds a whole backbone."""

import re

import torch

from mmattn import backbones

from .architecture import stage_depths
from .conversion import Converted

# Swin formats: every block has window attention, and the last norm exists.
_SWIN_FORMATS = ('boat_swin', 'swin', 'torchvision_swin', 'openmmlab_swin')
_TABLE = 'attn.relative_position_bias_table'


def missing_names(converted: Converted) -> list[str]:
    """List the parameters of the backbone that the checkpoint lacks.

    A parameter that is absent from all blocks, such as a bias, is taken for
    an option of the model. Missing last blocks of a stage cannot be detected,
    since models of any depth exist. Without a known arch only whole blocks
    are checked.

    Args:
        converted: Result of :func:`.convert`.

    Returns:
        Sorted names, or prefixes of names, in mmattn's naming.
    """
    found = converted.backbone
    kinds = {_kind(name) for name in found}
    missing = {
        name
        for name in _parameters(converted) - found.keys()
        if '.blocks.' not in name or _kind(name) in kinds
    }
    depths = stage_depths(found)
    last = max(depths, default=-1)
    if converted.family is None:
        leaf = _TABLE if converted.source in _SWIN_FORMATS else ''
        blocks = (
            f'stages.{stage}.blocks.{block}.{leaf}'
            for stage in range(last + 1)
            for block in range(depths.get(stage, 1))
        )
        missing |= {
            block.rstrip('.')
            for block in blocks
            if not any(name.startswith(block) for name in found)
        }
    # Stages that have only their downsampling layer.
    stages = (re.match(r'stages\.(\d+)\.', name) for name in found)
    missing |= {
        f'{stage[0]}blocks'
        for stage in stages
        if depths and stage and int(stage[1]) > last
    }
    if converted.source in _SWIN_FORMATS:
        norm = f'norm{last}.'
        missing |= {name for name in converted.added if name.startswith(norm)}
    return sorted(missing)


def _parameters(converted: Converted) -> set[str]:
    """All parameter names of the backbone; empty if it is unknown."""
    backbone = getattr(backbones, converted.family or '', None)
    if backbone is None or converted.arch is None:
        return set()
    options = {}
    if isinstance(converted.arch, dict):
        depths = converted.arch.get('depths', ())
        if sum(depths) > len(converted.backbone):
            return set()  # more blocks than tensors: do not build them
        options['out_indices'] = range(len(depths))
    with torch.device('meta'):
        model = backbone(arch=converted.arch, **options)
    return {name for name, _ in model.named_parameters()}


def _kind(name: str) -> str:
    return re.sub(r'\d+', '#', name)
