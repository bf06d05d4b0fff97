"""From a config and the name of a backbone to the edits of a swap."""

from collections.abc import Callable, Sequence

from .edits import Edit, Path, apply_edits, get_at
from .families import STRIDES, Family
from .heads import Maps, edit_head, find_heads, indices_read
from .levels import Level, match_levels, probe_backbone, probe_neck
from .necks import NeckReading, read_neck
from .refusal import SwapRefused
from .refusals import check_uses, check_whole, find_network
from .surroundings import edit_optimizer, edit_preprocessor, edit_weights


def plan_swap(
    config: dict,
    host: str,
    family: Family,
    checkpoint: str | None = None,
    keep_optimizer: bool = False,
    on_levels: Callable[[list[Level]], None] | None = None,
) -> list[Edit]:
    """Decide everything that a swap of the backbone changes.

    Args:
        config: The whole config, as it is.
        host: Codebase whose names it uses.
        family: The new backbone.
        checkpoint: File of pretrained weights for it. Defaults to None.
        keep_optimizer: Leave optimizer and decay rules. Defaults to False.
        on_levels: Called with the maps of the old backbone, also where the
            swap is refused because of them. Defaults to None.

    Returns:
        The edits, in the order in which a config says them.

    Raises:
        SwapRefused: If the backbone cannot be replaced in a way that makes
            sense.
    """
    path = find_network(config)
    network = get_at(config, path)
    check_whole(config, network)
    old = probe_backbone(network['backbone'], host)
    if on_levels is not None:
        on_levels(old)
    check_uses(network)
    edits = edit_preprocessor(config)
    edits += edit_weights(config, path)
    edits += edit_network(network, path, host, old, family, checkpoint)
    if not keep_optimizer:
        edits += edit_optimizer(config, family, host)
    return edits


def edit_network(
    network: dict,
    path: Path,
    host: str,
    old: list[Level],
    family: Family,
    checkpoint: str | None,
) -> list[Edit]:
    """Replace the backbone, and fit the neck and the heads to it."""
    if not network.get('neck') and not any(find_heads(network, path)):
        raise SwapRefused('it has no head: its pretrained weights are all')
    if any(level.stride == 0 for level in old):
        return _edit_vector(network, path, old, family, checkpoint)
    pyramid = _pyramid_of_neck(network, old, host)
    if pyramid:
        return _edit_without_neck(network, path, pyramid, family, checkpoint)
    matches = match_levels(old)
    if _compares_maps(network, path):
        matches = _same_for_same_stride(matches, old)
    neck = read_neck(network, path, old)
    read = neck.indices if neck else _read_by_heads(network, path, old)
    stages = sorted({matches[i] for i in read})
    before = [old[i].stride for i in read]
    edits = [_backbone(network, path, stages, family, checkpoint, before)]
    positions = {i: stages.index(matches[i]) for i in read}
    new = [Level(family.channels[i], STRIDES[i]) for i in stages]
    maps = Maps(old, new, positions)
    if host == 'mmdet':
        _check_strides(before, [STRIDES[matches[i]] for i in read])
    if neck:
        _check_distinct(neck, positions)
        channels = [new[positions[i]].channels for i in neck.indices]
        edits += neck.edits(channels)
        maps = _behind_neck(network, path, host, edits, maps)
    if maps is not None:
        for where, head in find_heads(network, path):
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
        before: Strides of the old maps, where they were others.
    """
    value = dict(type=family.type, arch=family.arch, out_indices=tuple(stages))
    if network['backbone'].get('with_cp'):
        value['with_cp'] = True
    if network['backbone'].get('in_channels', 3) != 3:  # pairs of images
        value['in_channels'] = network['backbone']['in_channels']
    strides = [STRIDES[i] for i in stages]
    why = f'Maps at stride {_join(strides)}'
    if before and list(before) != strides:
        why += f' in place of {_join(before)}'
    if checkpoint is None:
        why += '. No pretrained weights: --checkpoint FILE names them'
    else:
        value['init_cfg'] = dict(type='Pretrained', checkpoint=checkpoint)
    return Edit((*path, 'backbone'), value, f'{why}.')


def _join(numbers: Sequence[int]) -> str:
    *most, last = map(str, numbers)
    return f'{", ".join(most)} and {last}' if most else last


def _edit_vector(
    network: dict,
    path: Path,
    old: list[Level],
    family: Family,
    checkpoint: str | None,
) -> list[Edit]:
    """Pool the last map where the old backbone gave a vector."""
    if network.get('neck') or len(old) > 1 or 'head' not in network:
        raise SwapRefused(
            'its backbone gives vectors, and what reads them is no '
            'classifier head'
        )
    last = len(STRIDES) - 1
    new = Level(family.channels[last], 0)
    why = 'The old backbone gave a vector; this one gives a map.'
    edits = [
        _backbone(network, path, [last], family, checkpoint),
        Edit((*path, 'neck'), dict(type='GlobalAveragePooling'), why),
    ]
    head = network['head']
    if not isinstance(head.get('in_channels'), int):
        raise SwapRefused(
            'its classifier is part of the backbone',
            f'{head.get("type")} has no in_channels',
        )
    return edits + edit_head(head, (*path, 'head'), Maps(old, [new], {0: 0}))


def _pyramid_of_neck(
    network: dict, old: list[Level], host: str
) -> list[Level]:
    """Outputs of a neck whose only work is to make a pyramid."""
    neck = network.get('neck')
    same = len(old) > 1 and len({level.stride for level in old}) == 1
    if not same or not neck:
        return []
    made = probe_neck(neck, old, host)
    if [level.stride for level in made] != list(STRIDES):
        raise SwapRefused(
            'its neck joins maps of one stride, of which ours has one',
            f'{neck.get("type")} over {len(old)} maps at stride '
            f'{old[0].stride}',
        )
    return made


def _edit_without_neck(
    network: dict,
    path: Path,
    made: list[Level],
    family: Family,
    checkpoint: str | None,
) -> list[Edit]:
    """Let the heads read the backbone where a neck made its pyramid."""
    matches = match_levels(made)
    read = _read_by_heads(network, path, made)
    stages = sorted({matches[i] for i in read})
    new = [Level(family.channels[i], STRIDES[i]) for i in stages]
    maps = Maps(made, new, {i: stages.index(matches[i]) for i in read})
    why = 'It made a pyramid of maps of one stride; these are a pyramid.'
    edits = [
        _backbone(network, path, stages, family, checkpoint),
        Edit((*path, 'neck'), None, why),
    ]
    for where, head in find_heads(network, path):
        edits += edit_head(head, where, maps)
    return edits


def _read_by_heads(
    network: dict, path: Path, levels: list[Level]
) -> list[int]:
    read: set[int] = set()
    for _, head in find_heads(network, path):
        read |= indices_read(head, levels)
    return sorted(read)


def _compares_maps(network: dict, path: Path) -> bool:
    """Whether a head joins what others read, place by place."""
    return any(
        head.get('type') == 'OCRHead' for _, head in find_heads(network, path)
    )


def _same_for_same_stride(
    matches: Sequence[int], old: Sequence[Level]
) -> list[int]:
    """Take the last of ours for all old maps that had one stride."""
    last = {level.stride: match for level, match in zip(old, matches)}
    return [last[level.stride] for level in old]


def _check_strides(old: Sequence[int], new: Sequence[int]) -> None:
    """Heads of detectors place their anchors by the strides of the maps."""
    if list(old) != list(new) and max(old) > STRIDES[-1]:
        raise SwapRefused(
            f'its heads read maps coarser than stride {STRIDES[-1]}, which '
            'ours does not give',
            f'their strides are {_join(old)}',
        )


def _check_distinct(neck: NeckReading, positions: dict[int, int]) -> None:
    if len(set(positions.values())) < len(positions):
        raise SwapRefused(
            'its neck joins maps of one stride, of which ours has one',
            f'{neck.cfg.get("type")} over {len(positions)} maps',
        )


def _behind_neck(
    network: dict, path: Path, host: str, edits: list[Edit], maps: Maps
) -> Maps | None:
    """What the heads take from the neck; None if that is as before."""
    root = apply_edits(_nest(network, path), edits)
    new_neck = get_at(root, path)['neck']
    try:
        before = probe_neck(network['neck'], maps.old, host)
    except SwapRefused:
        return None  # it cannot be run here on its own
    after = probe_neck(new_neck, maps.new, host)
    if [b.channels for b in before] == [a.channels for a in after]:
        return None
    return Maps(before, after, {i: i for i in range(len(after))})


def _nest(network: dict, path: Path) -> dict:
    root = network
    for key in reversed(path):
        root = {key: root}
    return root
