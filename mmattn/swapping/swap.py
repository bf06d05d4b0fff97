"""Swap the backbone of one config: read, plan, check, write."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

from mmattn.checkpoints import ConversionError, convert, load_file

from .checking import CheckFailed, check_model
from .edits import Edit, apply_edits, get_at
from .families import Family, find_family, list_families
from .planning import plan_swap
from .source import Source, read_source
from .unsupported import SwapError, find_network
from .writing import write_config

# How the part of a config name that stands for the backbone begins.
_BACKBONE = re.compile(
    r'[rxs]\d|res|hr|regnet|swin|convnext|mobilenet|vgg|pvt|twins|mit|vit|'
    r'beit|mae|mscan|poolformer|d53|cspnext|[slmx]$|tiny$|nano$|'
    r'boat|cswin|smt|enl|sliding-window|multi-head|key-value'
)
# In names of new-style configs the size is a separate part: swin_l.
_SIZE = re.compile(r'[ntsblx]|nano|tiny|small|base|large|huge')


class Swapped(NamedTuple):
    """A config with a new backbone."""

    path: Path
    edits: list[Edit]
    codebase: str
    warnings: list[str]
    """What may keep the new config from training well."""
    has_loss: bool | None = None
    """Whether the check computed a loss, besides a prediction; None without
    a check."""


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
        The path of the new config, its edits, warnings and the result of
        the check.

    Raises:
        UnsupportedSwap: If the backbone cannot be swapped.
        UsageError: If an argument is wrong or the check fails. Nothing is
            written in either case.
    """
    family = find_family(backbone)
    read = read_source(source)
    if checkpoint is not None:
        _check_checkpoint(checkpoint, family)
    edits = plan_swap(
        read.config, read.codebase, family, checkpoint, keep_optimizer
    )
    config = apply_edits(read.config, edits)
    has_loss = _check(read, config, family) if check else None
    out = out or Path(f'{new_name(read, family)}.py')
    header = make_header(read, family, checkpoint, keep_optimizer)
    write_config(read, edits, out, header, force)
    warnings = list_warnings(config, checkpoint, keep_optimizer)
    return Swapped(out, edits, read.codebase, warnings, has_loss)


def _check(source: Source, config: dict, family: Family) -> bool:
    """Check the new config; see :func:`.check_model`."""
    network = find_network(config)
    try:
        return check_model(config, source.codebase, network)
    except CheckFailed as error:
        problem = (
            f'the check of {source.name} with {family.name} failed, nothing '
            f'was written: {error}'
        )
        try:
            check_model(source.config, source.codebase, network)
        except CheckFailed as same:
            problem += (
                f'; with its own backbone the config fails as well: {same}; '
                'to write the new config anyway, leave out --check'
            )
        raise SwapError(problem) from error


def new_name(source: Source, family: Family) -> str:
    """Name of a config with its backbone replaced, or added."""
    stem = source.path.stem
    for own in list_families():  # as in names of new-style configs
        stem = stem.replace(own.replace('-', '_'), own)
    first, *parts = stem.split('_')
    found = next((i for i, x in enumerate(parts) if _BACKBONE.match(x)), None)
    if found is not None:
        rest = parts[found + 1 :]
        if rest and _SIZE.fullmatch(rest[0]):
            del rest[0]
        name = '_'.join([first, *parts[:found], family.name, *rest])
    elif _BACKBONE.match(first):  # of a classifier
        name = '_'.join([family.name, *parts])
    else:
        name = '_'.join([first, family.name, *parts])
    # Others can only import new-style configs with the name of a module.
    return name.replace('-', '_') if source.is_new_style else name


def list_warnings(
    config: dict, checkpoint: str | None, keep_optimizer: bool
) -> list[str]:
    """Describe what may keep the new config from training well."""
    wrapper = config.get('optim_wrapper') or {}
    keys = get_at(wrapper, ('paramwise_cfg', 'custom_keys')) or {}
    found = [key for key in keys if key in 'backbone.']
    rate = keys[max(found, key=len)].get('lr_mult', 1) if found else 1
    warnings = []
    if checkpoint is None:
        slow = f' and trains at {rate:g} times the learning rate'
        warnings.append(
            f'the backbone starts from random weights{slow * (rate != 1)}; '
            'set pretrained weights with --checkpoint FILE'
        )
    elif rate == 0:
        warnings.append('the backbone has a learning rate of 0')
    schedulers = config.get('param_scheduler')
    if isinstance(schedulers, list) and not any(
        'start_factor' in scheduler for scheduler in schedulers
    ):
        warnings.append(
            'the schedule has no warm-up, which transformers usually need; '
            'see configs/_base_/schedules for the recipes of the papers'
        )
    constructor = str(wrapper.get('constructor', ''))
    if wrapper and not constructor.startswith('mmattn.'):
        if not keep_optimizer:
            warnings.append(
                f'{constructor} is kept: it may apply weight decay to norms '
                'and position tables of the backbone'
            )
    return warnings


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
    except ConversionError as error:
        options = [f' --prefix {x}' for x in getattr(error, 'prefixes', ())]
        raise SwapError(
            f'--checkpoint {checkpoint}: {error.problem}; convert it first '
            f'with tools/convert_checkpoint.py{"".join(options[:1])}'
        ) from error
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
