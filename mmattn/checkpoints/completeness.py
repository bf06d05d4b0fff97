"""Check whether a converted checkpoint holds a whole backbone."""

import re

import torch

from mmattn import backbones

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
    depths = _depths(found)
    if converted.family is None:
        missing |= _missing_blocks(converted, depths)
    missing |= {
        f'stages.{stage}.blocks'
        for stage in _numbers(r'stages\.(\d+)\.', found)
        if depths and stage > max(depths)  # only its downsampling layer
    }
    if converted.source in _SWIN_FORMATS:
        last = f'norm{max(depths)}.'
        missing |= {name for name in converted.added if name.startswith(last)}
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


def _missing_blocks(converted: Converted, depths: dict[int, int]) -> set[str]:
    """Blocks before the last of each stage that have no tensors."""
    missing = set()
    leaf = _TABLE if converted.source in _SWIN_FORMATS else ''
    for stage in range(max(depths, default=-1) + 1):
        for block in range(depths.get(stage, 1)):
            name = f'stages.{stage}.blocks.{block}.{leaf}'
            if not any(key.startswith(name) for key in converted.backbone):
                missing.add(name.rstrip('.'))
    return missing


def _depths(names: dict) -> dict[int, int]:
    """Depth of each stage: the index of its last block plus one."""
    stages = _numbers(r'stages\.(\d+)\.blocks\.', names)
    return {
        i: max(_numbers(rf'stages\.{i}\.blocks\.(\d+)\.', names)) + 1
        for i in stages
    }


def _numbers(pattern: str, names: dict) -> set[int]:
    found = (re.match(pattern, name) for name in names)
    return {int(match[1]) for match in found if match}


def _kind(name: str) -> str:
    return re.sub(r'\d+', '#', name)
