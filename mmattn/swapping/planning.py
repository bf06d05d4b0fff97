"""Plan the edits that replace the backbone of a config."""

from collections.abc import Sequence

from .edits import Edit, Path, apply_edits, get_at
from .families import STRIDES, Family
from .feature_maps import FeatureMap, match_maps, probe_backbone, probe_neck
from .heads import Maps, edit_head, find_heads, indices_read
from .necks import read_neck
from .source import shorten_types
from .training_setup import edit_optimizer, edit_preprocessor, edit_weights
from .unsupported import (
    ChannelMismatch,
    UnsupportedSwap,
    check_types,
    check_uses,
    find_network,
)

_JOINS = 'the neck joins several maps of one stride, ours has one'


def plan_swap(
    config: dict,
    codebase: str,
    family: Family,
    checkpoint: str | None = None,
    keep_optimizer: bool = False,
) -> list[Edit]:
    """Plan all edits of a swap.

    Args:
        config: The whole config.
        codebase: Codebase of the config.
        family: The new backbone.
        checkpoint: File of pretrained weights for it. Defaults to None.
        keep_optimizer: Keep the optimizer. Defaults to False.

    Returns:
        The edits, in the order of a config.

    Raises:
        UnsupportedSwap: If the backbone cannot be swapped.
    """
    path = find_network(config)
    network = get_at(config, path)
    check_types(config, network)
    old = probe_backbone(network['backbone'], codebase)
    check_uses(network)
    in_channels = network['backbone'].get('in_channels') or 3
    edits = edit_preprocessor(config, in_channels)
    edits += edit_weights(config, path)
    edits += edit_network(config, path, codebase, old, family, checkpoint)
    if not keep_optimizer:
        edits += edit_optimizer(config, family, codebase)
    return edits


def check_channels(config: dict, codebase: str) -> None:
    """Compare ``in_channels`` of neck and heads with the backbone's maps.

    Configs with other backbones, and models that cannot be run on their own,
    are not checked.

    Args:
        config: The whole config.
        codebase: Codebase of the config.

    Raises:
        ChannelMismatch: If they differ; the message has both.
    """
    config = shorten_types(config, codebase)
    try:
        path = find_network(config)
        network = get_at(config, path)
        if not str(network['backbone']['type']).startswith('mmattn.'):
            return
        maps = probe_backbone(network['backbone'], codebase)
        if read_neck(network, path, maps) is not None:
            maps = probe_neck(network['neck'], maps, codebase)
        same = Maps(maps, maps, {i: i for i in range(len(maps))})
        for where, head in find_heads(network, path):
            edit_head(head, where, same)
    except ChannelMismatch:
        raise
    except UnsupportedSwap:
        return


def edit_network(
    config: dict,
    path: Path,
    codebase: str,
    old: list[FeatureMap],
    family: Family,
    checkpoint: str | None,
) -> list[Edit]:
    """Replace the backbone and fit the neck and the heads to it."""
    network = get_at(config, path)
    heads = list(find_heads(network, path))
    if not network.get('neck') and not heads:
        raise UnsupportedSwap('the model has no head')
    if any(each.stride == 0 for each in old):
        return _edit_vector(network, path, old, family, checkpoint)
    pyramid = _pyramid_of_neck(network, old, codebase)
    old = pyramid or old
    matches = match_maps(old)
    if any(head.get('type') == 'OCRHead' for _, head in heads):
        # It joins the map of another head with its own: old maps of one
        # stride are all replaced by the last of ours.
        last = {each.stride: match for each, match in zip(old, matches)}
        matches = [last[each.stride] for each in old]
    neck = None if pyramid else read_neck(network, path, old)
    if neck:
        read = neck.indices
    else:
        read = sorted(
            {i for _, head in heads for i in indices_read(head, old)}
        )
    stages = sorted({matches[i] for i in read})
    before = [old[i].stride for i in read]
    edits = [_backbone(network, path, stages, family, checkpoint, before)]
    if pyramid:
        why = 'The old neck made a pyramid; the new backbone returns one.'
        edits.append(Edit((*path, 'neck'), None, why))
    positions = {i: stages.index(matches[i]) for i in read}
    new = [FeatureMap(family.channels[i], STRIDES[i]) for i in stages]
    maps = Maps(old, new, positions)
    # Detectors place their anchors by the strides.
    if codebase == 'mmdet' and max(before) > STRIDES[-1]:
        raise UnsupportedSwap(
            f'the heads read maps coarser than stride {STRIDES[-1]}, our '
            'coarsest',
            f'their strides are {_join(before)}',
        )
    if neck:
        if len(set(positions.values())) < len(positions):
            raise UnsupportedSwap(
                _JOINS, f'{neck.cfg.get("type")} reads {len(positions)} maps'
            )
        channels = [new[positions[i]].channels for i in neck.indices]
        edits += neck.edits(channels)
        maps = _behind_neck(config, path, codebase, edits, maps)
    if maps is not None:
        for where, head in heads:
            edits += edit_head(head, where, maps)
    return edits


def _backbone(
    network: dict,
    path: Path,
    stages: Sequence[int],
    family: Family,
    checkpoint: str | None,
    before: Sequence[int] = (),
) -> Edit:
    """Config of the new backbone.

    Args:
        before: Strides of the old maps, mentioned if they differ.
    """
    value = dict(type=family.type, arch=family.arch, out_indices=tuple(stages))
    if network['backbone'].get('with_cp'):
        value['with_cp'] = True
    if network['backbone'].get('in_channels', 3) != 3:
        value['in_channels'] = network['backbone']['in_channels']
    strides = [STRIDES[i] for i in stages]
    why = f'Output: one map at stride {strides[0]}'
    if len(strides) > 1:
        why = f'Output: maps at strides {_join(strides)}'
    if before and list(before) != strides:
        why += f' instead of {_join(before)}'
    if checkpoint is None:
        why += '. Not pretrained: set weights with --checkpoint FILE'
    else:
        value['init_cfg'] = dict(type='Pretrained', checkpoint=checkpoint)
    return Edit((*path, 'backbone'), value, f'{why}.')


def _join(numbers: Sequence[int]) -> str:
    *most, last = map(str, numbers)
    return f'{", ".join(most)} and {last}' if most else last


def _edit_vector(
    network: dict,
    path: Path,
    old: list[FeatureMap],
    family: Family,
    checkpoint: str | None,
) -> list[Edit]:
    """Pool the last map where the old backbone returned a vector."""
    if network.get('neck') or len(old) > 1 or 'head' not in network:
        raise UnsupportedSwap(
            'the backbone returns vectors for something other than a '
            'classifier head'
        )
    last = len(STRIDES) - 1
    new = FeatureMap(family.channels[last], 0)
    why = 'The old backbone returned a vector; this one returns a map.'
    edits = [
        _backbone(network, path, [last], family, checkpoint),
        Edit((*path, 'neck'), dict(type='GlobalAveragePooling'), why),
    ]
    head = network['head']
    if not isinstance(head.get('in_channels'), int):
        raise UnsupportedSwap(
            'the classifier is part of the backbone',
            f'{head.get("type")} has no in_channels',
        )
    return edits + edit_head(head, (*path, 'head'), Maps(old, [new], {0: 0}))


def _pyramid_of_neck(
    network: dict, old: list[FeatureMap], codebase: str
) -> list[FeatureMap]:
    """Outputs of a neck that makes a pyramid of maps of one stride."""
    neck = network.get('neck')
    same = len(old) > 1 and len({each.stride for each in old}) == 1
    if not same or not neck:
        return []
    made = probe_neck(neck, old, codebase)
    if [each.stride for each in made] != list(STRIDES):
        raise UnsupportedSwap(
            _JOINS,
            f'{neck.get("type")} reads {len(old)} maps at stride '
            f'{old[0].stride}',
        )
    return made


def _behind_neck(
    config: dict, path: Path, codebase: str, edits: list[Edit], maps: Maps
) -> Maps | None:
    """The inputs of the heads; None if the neck's outputs are unchanged."""
    where = (*path, 'neck')
    new_neck = get_at(apply_edits(config, edits), where)
    try:
        before = probe_neck(get_at(config, where), maps.old, codebase)
    except UnsupportedSwap:
        return None  # it cannot be run on its own
    after = probe_neck(new_neck, maps.new, codebase)
    if [b.channels for b in before] == [a.channels for a in after]:
        return None
    return Maps(before, after, {i: i for i in range(len(after))})
