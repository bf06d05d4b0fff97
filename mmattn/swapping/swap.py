"""Swap the backbone of one config: read, plan, check, write."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

from mmattn.checkpoints import convert, load_file

from .checking import Checked, CheckFailed, check_model
from .edits import Edit, apply_edits
from .families import Family, find_family
from .planning import plan_swap
from .source import Source, read_source
from .unsupported import SwapError, find_network
from .writing import write_config

# How the part of a config's name that names the backbone begins.
_BACKBONE = re.compile(
    r'[rxs]\d|res|hr|regnet|swin|convnext|mobilenet|vgg|pvt|twins|mit|vit|'
    r'beit|mae|mscan|poolformer|d53|cspnext|[slmx]$|tiny$|nano$'
)


class Swapped(NamedTuple):
    """A config with a new backbone."""

    path: Path
    edits: list[Edit]
    checked: Checked | None = None


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
        source: Path of a config, or ``codebase::path``.
        backbone: Name of one of our backbones, such as ``boat-swin-tiny``.
        out: The new file. Defaults to the name of the source with the new
            backbone, in the current folder.
        checkpoint: Pretrained weights of the new backbone. Defaults to None.
        keep_optimizer: Keep the optimizer. Defaults to False.
        check: Build and run the model before the config is written. Defaults
            to False.
        force: Overwrite ``out``. Defaults to False.

    Returns:
        The path of the new config, its edits and the result of the check.

    Raises:
        UnsupportedSwap: If the backbone cannot be swapped.
        SwapError: If an argument is wrong or the check fails. Nothing is
            written in either case.
    """
    family = find_family(backbone)
    read = read_source(source)
    if checkpoint is not None:
        _check_checkpoint(checkpoint, family)
    edits = plan_swap(
        read.config, read.codebase, family, checkpoint, keep_optimizer
    )
    checked = None
    if check:
        config = apply_edits(read.config, edits)
        try:
            checked = check_model(config, read.codebase, find_network(config))
        except CheckFailed as error:
            raise SwapError(
                f'the check of {source} with {backbone} failed, nothing was '
                f'written: {error}'
            ) from error
    out = out or Path(f'{new_name(read.path, family)}.py')
    header = make_header(read, family, checkpoint, keep_optimizer)
    write_config(read, edits, out, header, force)
    return Swapped(out, edits, checked)


def new_name(path: Path, family: Family) -> str:
    """Name of a config with its backbone replaced, or added."""
    first, *parts = path.stem.split('_')
    for i, part in enumerate(parts):
        if _BACKBONE.match(part):
            return '_'.join([first, *parts[:i], family.name, *parts[i + 1 :]])
    if _BACKBONE.match(first):  # of a classifier
        return '_'.join([family.name, *parts])
    return '_'.join([first, family.name, *parts])


def make_header(
    source: Source,
    family: Family,
    checkpoint: str | None = None,
    keep_optimizer: bool = False,
) -> str:
    """Comment at the top of the new config, with its command."""
    words = [f'--backbone {family.name}']
    if checkpoint is not None:
        words.append(f'--checkpoint {shlex.quote(checkpoint)}')
    if keep_optimizer:
        words.append('--keep-optimizer')
    command = ' \\\n#     '.join([shlex.quote(source.name), *words])
    return (
        f'# {source.path.stem}\n'
        f'# with {family.type} {family.arch}, written by\n'
        f'# python tools/swap_backbone.py \\\n'
        f'#     {command}\n'
    )


def _check_checkpoint(checkpoint: str, family: Family) -> None:
    try:
        found = convert(load_file(checkpoint))
    except (OSError, ValueError, ImportError) as error:
        raise SwapError(f'--checkpoint: {error}') from error
    if found.family is None:
        return  # names alone do not identify it
    # An unnamed arch cannot be compared.
    arch = found.arch if isinstance(found.arch, str) else family.arch
    if (f'mmattn.{found.family}', arch) != (family.type, family.arch):
        raise SwapError(
            f'{checkpoint} has weights of mmattn.{found.family} {arch}, not '
            f'of {family.type} {family.arch}; change --backbone or '
            '--checkpoint'
        )
