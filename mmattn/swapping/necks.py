"""What a neck says about the maps that it takes."""

from collections.abc import Sequence
from typing import NamedTuple

from .edits import Edit, Path
from .levels import Level
from .refusal import SwapRefused

# What the necks of the codebases call the channels of their inputs.
_CHANNEL_KEYS = ('in_channels', 'input_features', 'embed_dim')


class NeckReading(NamedTuple):
    """Which of the backbone's maps a neck reads, and how it names them."""

    path: Path
    cfg: dict
    key: str | None
    """Entry that holds the channels; None where they do not matter."""
    indices: tuple[int, ...]
    """Maps that it reads, in the order of the backbone."""
    backwards: bool = False
    """It lists them from coarse to fine."""

    def edits(self, channels: Sequence[int]) -> list[Edit]:
        """Write the channels of the maps that take the place of the old.

        Args:
            channels: One for each of ``indices``.
        """
        if self.key is None:
            return []
        channels = list(channels)
        old = self.cfg[self.key]
        why = 'Channels of the maps that the backbone returns.'
        if isinstance(old, int):
            return [Edit((*self.path, self.key), channels[-1], why)]
        ordered = type(old)(channels[::-1] if self.backwards else channels)
        edits = [Edit((*self.path, self.key), ordered, why)]
        if self.cfg.get('start_level'):
            why = 'What the neck skipped before is not returned any more.'
            edits.append(Edit((*self.path, 'start_level'), 0, why))
        if self.cfg.get('end_level', -1) != -1:
            edits.append(Edit((*self.path, 'end_level'), -1))
        out = self.cfg.get('out_channels')
        if isinstance(out, (list, tuple)) and list(out[: len(old)]) == list(
            old
        ):
            why = 'The first outputs are the maps themselves.'
            value = type(out)((*ordered, *out[len(old) :]))
            edits.append(Edit((*self.path, 'out_channels'), value, why))
        return edits


def read_neck(
    network: dict, path: Path, levels: Sequence[Level]
) -> NeckReading | None:
    """Find out what the first neck of a network reads.

    Args:
        network: Config of the network.
        path: Where it is in the whole config.
        levels: What its backbone returns.

    Returns:
        The reading, or None if the network has no neck.

    Raises:
        SwapRefused: If the neck does not name the channels of these maps.
    """
    neck = network.get('neck')
    path = (*path, 'neck')
    if isinstance(neck, (list, tuple)) and neck:
        neck, path = neck[0], (*path, 0)
    if not neck:
        return None
    everything = tuple(range(len(levels)))
    key = next((key for key in _CHANNEL_KEYS if key in neck), None)
    if key is None:
        return NeckReading(path, neck, None, everything)
    channels = [level.channels for level in levels]
    named = neck[key]
    if isinstance(named, int):
        found = [i for i in everything if channels[i] == named]
        _check(found, neck, named, channels)
        same = len(set(channels)) == 1
        return NeckReading(
            path, neck, key, everything if same else (found[-1],)
        )
    named = list(named)
    backwards = named == channels[::-1] and named != channels
    # A neck that names fewer maps takes the last ones.
    last = named == channels[-len(named) :]
    _check(backwards or last, neck, named, channels)
    everything = everything[-len(named) :]
    start, end = neck.get('start_level', 0), neck.get('end_level', -1)
    end = len(named) if end == -1 else end + 1
    return NeckReading(path, neck, key, everything[start:end], backwards)


def _check(found: object, neck: dict, named: object, channels: list) -> None:
    if not found:
        raise SwapRefused(
            f'its neck {neck.get("type")} does not read the maps of its '
            'backbone',
            f'it expects {named} channels, the backbone gives {channels}',
        )
