"""Swap the backbone of one config: read, decide, check, write."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

from mmattn.checkpoints import convert, load_file
from mmattn.errors import UsageError

from .checking import Checked, CheckFailed, check_model
from .edits import Edit, apply_edits
from .families import Family, find_family
from .planning import plan_swap
from .refusals import find_network
from .source import Source, read_source
from .writing import write_config

# How the part of a config's name that says the backbone begins.
_BACKBONE = re.compile(
    r'[rxs]\d|res|hr|regnet|swin|convnext|mobilenet|vgg|pvt|twins|mit|vit|'
    r'beit|mae|mscan|poolformer|d53|cspnext|[slmx]$|tiny$|nano$'
)


class Swapped(NamedTuple):
    """A config with a new backbone."""

    path: Path
    edits: list[Edit]
    checked: Checked | None = None

    def __str__(self) -> str:
        paths = dict.fromkeys(
            '.'.join(map(str, edit.path)) for edit in self.edits
        )
        lines = [f'wrote     {self.path}', f'changed   {", ".join(paths)}']
        if self.checked is not None:
            loss = 'a loss and ' if self.checked.has_loss else ''
            lines.insert(0, f'checked   {loss}a prediction')
            lines += [
                'beware    it runs with any backbone only once this mistake '
                f'of the codebase is mended, as the check did: {mistake.what}'
                for mistake in self.checked.mended
            ]
        return '\n'.join(lines)


def swap_backbone(
    source: str,
    backbone: str,
    out: Path | None = None,
    checkpoint: str | None = None,
    keep_optimizer: bool = False,
    check: bool = False,
    force: bool = False,
) -> Swapped:
    """Write a config with another backbone.

    Args:
        source: Path of a config, or ``mmdet::...`` and so on.
        backbone: Name of one of ours, such as ``boat-swin-tiny``.
        out: The new file. Defaults to the source's name with the new
            backbone's, in the current folder.
        checkpoint: Pretrained weights of the new backbone. Defaults to None.
        keep_optimizer: Leave the optimizer as it is. Defaults to False.
        check: Build the model and run it, before anything is written.
            Defaults to False.
        force: Replace ``out`` if it is there. Defaults to False.

    Returns:
        Where it was written, and what was changed.

    Raises:
        SwapRefused: If the backbone cannot be replaced in a way that makes
            sense; nothing is written.
        UsageError: If an argument does not fit, or the check fails; nothing
            is written.
    """
    family = find_family(backbone)
    read = read_source(source)
    if checkpoint is not None:
        _check_checkpoint(checkpoint, family)
    edits = plan_swap(
        read.config, read.host, family, checkpoint, keep_optimizer
    )
    checked = None
    if check:
        config = apply_edits(read.config, edits)
        try:
            checked = check_model(config, read.host, find_network(config))
        except CheckFailed as error:
            raise UsageError(
                f'the check of {source} with {backbone} failed, nothing was '
                f'written: {error}'
            ) from error
    out = out or Path(f'{new_name(read.path, family)}.py')
    head = make_head(read, family, checkpoint, keep_optimizer)
    write_config(read, edits, out, head, force)
    return Swapped(out, edits, checked)


def new_name(path: Path, family: Family) -> str:
    """Name of a config with the backbone's part replaced, or added."""
    first, *parts = path.stem.split('_')
    for i, part in enumerate(parts):
        if _BACKBONE.match(part):
            return '_'.join([first, *parts[:i], family.name, *parts[i + 1 :]])
    if _BACKBONE.match(first):  # a classifier's name begins with it
        return '_'.join([family.name, *parts])
    return '_'.join([first, family.name, *parts])


def make_head(
    source: Source,
    family: Family,
    checkpoint: str | None = None,
    keep_optimizer: bool = False,
) -> str:
    """The first lines of the new config, with the command that made it."""
    words = [f'--backbone {family.name}']
    if checkpoint is not None:
        words.append(f'--checkpoint {shlex.quote(checkpoint)}')
    if keep_optimizer:
        words.append('--keep-optimizer')
    command = ' \\\n#     '.join([shlex.quote(source.name), *words])
    return (
        f'# {source.path.stem}\n'
        f'# on {family.type} {family.arch}; made by\n'
        f'# python tools/swap_backbone.py \\\n'
        f'#     {command}\n'
    )


def _check_checkpoint(checkpoint: str, family: Family) -> None:
    try:
        found = convert(load_file(checkpoint))
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(f'--checkpoint: {error}') from error
    if found.family is None:
        return  # in our names, which do not tell: loading it will
    # A dict of sizes, and none at all, are no named arch: neither tells.
    arch = found.arch if isinstance(found.arch, str) else family.arch
    if (f'mmattn.{found.family}', arch) != (family.type, family.arch):
        raise UsageError(
            f'--checkpoint expects weights of {family.type} {family.arch}, '
            f'got those of mmattn.{found.family} {arch} in {checkpoint}'
        )
