"""Whether a converted file holds a whole backbone, or only a part of one."""

import re

import torch

from mmattn import backbones

from .conversion import Converted

# Formats of Swin: all blocks attend inside windows, the last norm is there.
_OF_SWIN = ('boat_swin', 'swin', 'openmmlab_swin')
_TABLE = 'attn.relative_position_bias_table'


def missing_names(converted: Converted) -> list[str]:
    """What the backbone that a file is of has, and the file does not.

    A parameter that no block of the file has, a bias say, is a choice of the
    model. The last blocks of a stage may be gone unseen: there are models of
    any depth. Where no arch is told, whole blocks alone are missed.

    Args:
        converted: What :func:`.convert` made of the file.

    Returns:
        Names of ours, or how they begin, in order.
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
        if depths and stage > max(depths)  # its downsampling alone
    }
    if converted.source in _OF_SWIN:
        last = f'norm{max(depths)}.'
        missing |= {x for x in converted.added if x.startswith(last)}
    return sorted(missing)


def _parameters(converted: Converted) -> set[str]:
    """All parameters of the backbone; none where it is not told."""
    backbone = getattr(backbones, converted.family or '', None)
    if backbone is None or converted.arch is None:
        return set()
    options = {}
    if isinstance(converted.arch, dict):
        options['out_indices'] = range(len(converted.arch['depths']))
    with torch.device('meta'):
        model = backbone(arch=converted.arch, **options)
    return {name for name, _ in model.named_parameters()}


def _missing_blocks(converted: Converted, depths: dict[int, int]) -> set[str]:
    """Blocks before the last of each stage that have no name."""
    missing = set()
    leaf = _TABLE if converted.source in _OF_SWIN else ''
    for stage in range(max(depths, default=-1) + 1):
        for block in range(depths.get(stage, 1)):
            name = f'stages.{stage}.blocks.{block}.{leaf}'
            if not any(x.startswith(name) for x in converted.backbone):
                missing.add(name.rstrip('.'))
    return missing


def _depths(names: dict) -> dict[int, int]:
    """The number after that of the last block, by stage."""
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
