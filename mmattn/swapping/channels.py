"""Check that neck and heads fit an mmattn backbone, before training."""

from .edits import get_at, plain
from .feature_maps import probe_backbone, probe_neck
from .heads import Maps, edit_head, find_heads
from .necks import read_neck
from .source import shorten_types
from .unsupported import ChannelMismatch, UnsupportedSwap, find_network


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
    config = shorten_types(plain(config), codebase)
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
