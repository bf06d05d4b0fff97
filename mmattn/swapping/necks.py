"""Which maps a neck reads, and the edits that fit it to others."""

from collections.abc import Sequence
from typing import NamedTuple

from .edits import Edit, Path
from .feature_maps import FeatureMap
from .unsupported import ChannelMismatch

# Names of the option that holds the channels of a neck's inputs.
_CHANNEL_KEYS = ('in_channels', 'input_features', 'embed_dim')


class NeckInputs(NamedTuple):
    """The maps of the backbone that a neck reads."""

    path: Path
    cfg: dict
    key: str | None
    """Option that holds their channels; None if the neck has none."""
    indices: tuple[int, ...]
    """Indices of the maps, in the order of the backbone."""
    is_reversed: bool = False
    """Whether the option lists them from coarse to fine."""

    def edits(self, channels: Sequence[int]) -> list[Edit]:
        """Set the channels of the new maps, one for each of ``indices``."""
        if self.key is None:
            return []
        channels = list(channels)
        old = self.cfg[self.key]
        why = 'Channels of the new maps.'
        if isinstance(old, int):
            return [Edit((*self.path, self.key), channels[-1], why)]
        ordered = type(old)(channels[::-1] if self.is_reversed else channels)
        edits = [Edit((*self.path, self.key), ordered, why)]
        if self.cfg.get('start_level'):
            why = 'The backbone only returns the maps that the neck reads.'
            edits.append(Edit((*self.path, 'start_level'), 0, why))
        if self.cfg.get('end_level', -1) != -1:
            edits.append(Edit((*self.path, 'end_level'), -1))
        out = self.cfg.get('out_channels')
        if isinstance(out, (list, tuple)) and list(out[: len(old)]) == list(
            old
        ):
            why = 'The neck returns its inputs first.'
            value = type(out)((*ordered, *out[len(old) :]))
            edits.append(Edit((*self.path, 'out_channels'), value, why))
        return edits


def read_neck(
    network: dict, path: Path, maps: Sequence[FeatureMap]
) -> NeckInputs | None:
    """Find which maps the first neck of a network reads.

    Args:
        network: Config of the network.
        path: Its place in the whole config.
        maps: The maps of its backbone.

    Returns:
        The maps that it reads, or None if the network has no neck.

    Raises:
        ChannelMismatch: If the neck expects other channels.
    """
    neck = network.get('neck')
    path = (*path, 'neck')
    if isinstance(neck, (list, tuple)) and neck:
        neck, path = neck[0], (*path, 0)
    if not neck:
        return None
    everything = tuple(range(len(maps)))
    key = next((key for key in _CHANNEL_KEYS if key in neck), None)
    if key is None:
        return NeckInputs(path, neck, None, everything)
    channels = [each.channels for each in maps]
    expected = neck[key]
    if isinstance(expected, int):
        found = [i for i in everything if channels[i] == expected]
        _check(found, neck, expected, channels)
        same = len(set(channels)) == 1
        return NeckInputs(
            path, neck, key, everything if same else (found[-1],)
        )
    expected = list(expected)
    is_reversed = expected == channels[::-1] and expected != channels
    # A neck with fewer inputs reads the last maps.
    is_last = expected == channels[-len(expected) :]
    _check(is_reversed or is_last, neck, expected, channels)
    everything = everything[-len(expected) :]
    start, end = neck.get('start_level', 0), neck.get('end_level', -1)
    end = len(expected) if end == -1 else end + 1
    return NeckInputs(path, neck, key, everything[start:end], is_reversed)


def _check(fits: object, neck: dict, expected: object, given: list) -> None:
    if not fits:
        raise ChannelMismatch(f'neck {neck.get("type")}', expected, given)
