"""Detect the format of a checkpoint and convert its names to mmattn's."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from .architecture import family_and_arch, stage_depths
from .cswin import rename_boat_cswin, rename_cswin
from .enlca import rename_enlca
from .naming import Renamed, by_table, list_names
from .own import rename_own
from .perspective import name_in_perspective_head, rename_perspective
from .smt import rename_smt
from .swin import (
    rename_boat_swin,
    rename_openmmlab_swin,
    rename_swin,
    rename_torchvision_swin,
)

# Prefixes of the backbone in whole models.
_PREFIXES = ('backbone.', 'encoder.')
# Parts of a longer prefix, such as `model.student.backbone.`.
_MAX_PARTS = 4


class _Format(NamedTuple):
    marks: tuple[str, ...]  # patterns, each of which matches some name
    rename: Callable[[dict[str, Tensor]], Renamed]
    head_name: str = 'head'  # in a whole model of a codebase
    name_in_head: Callable[[str], str | None] = by_table({'head.fc.*': 'fc.*'})


_TABLE = r'attn\.relative_position_bias_table'
# The first format of which all marks are found is taken.
_FORMATS = {
    'mmattn': _Format(
        (r'(stem|integrator)\.', r'stages\.\d\.blocks\.0\.'), rename_own
    ),
    'boat_swin': _Format(
        (r'patch_embed\.proj\.', r'layers\.0\.blocks\.\d+\.attnC\.'),
        rename_boat_swin,
    ),
    'swin': _Format(
        (r'patch_embed\.proj\.', rf'layers[._]0\.blocks\.0\.{_TABLE}'),
        rename_swin,
    ),
    'torchvision_swin': _Format(
        (r'features\.0\.0\.', rf'features\.1\.0\.{_TABLE}'),
        rename_torchvision_swin,
    ),
    'openmmlab_swin': _Format(
        (r'patch_embed\.projection\.', r'stages\.0\.blocks\.0\.attn\.w_msa\.'),
        rename_openmmlab_swin,
    ),
    'boat_cswin': _Format(
        (r'stage1_conv_embed\.0\.', r'stage1\.\d+\.content_attn\.'),
        rename_boat_cswin,
    ),
    'cswin': _Format(
        (r'stage1_conv_embed\.0\.', r'stage1\.0\.attns\.0\.'),
        rename_cswin,
    ),
    'smt': _Format((r'patch_embed1\.conv\.0\.', r'block1\.0\.'), rename_smt),
    'perspective_unet': _Format(
        (r'Encoder1\.layers\.0\.resblock\.',),
        rename_perspective,
        'decode_head',
        name_in_perspective_head,
    ),
    'enlca': _Format(
        (r'(.*\.)?conv_match1\.0\.', r'(.*\.)?attn_fn\.projection_matrix$'),
        rename_enlca,
    ),
}


class ConversionError(ValueError):
    """A checkpoint that cannot be converted.

    Args:
        problem (str): What is wrong.
        option (str): The argument of :func:`convert` that may help, such as
            ``'strict=False'``. Defaults to ''.
    """

    def __init__(self, problem: str, option: str = '') -> None:
        super().__init__(f'{problem}; set {option}' if option else problem)
        self.problem = problem
        self.option = option


class UnknownKeys(ConversionError):
    """A checkpoint with keys that its format does not have."""


class UnknownFormat(ConversionError):
    """A checkpoint of no known format.

    Args:
        problem (str): What is wrong.
        state_dict (dict): Tensors of the checkpoint, which may have a backbone
            below a prefix.
    """

    def __init__(self, problem: str, state_dict: dict[str, Tensor]) -> None:
        self.prefixes = find_prefixes(state_dict)
        if self.prefixes:
            places = ' and '.join(map(repr, self.prefixes))
            problem += f'; there is a known format below {places}'
        options = (f'prefix={prefix!r}' for prefix in self.prefixes)
        super().__init__(problem, ' or '.join(options))


@dataclass
class Converted:
    """A checkpoint in mmattn's names.

    Args:
        backbone: State dict of the backbone, for strict loading.
        head: State dict of mmpretrain's ``LinearClsHead`` (``fc.weight``,
            ``fc.bias``) or, for a Perspective+ U-Net, of
            ``PerspectiveHead``; empty without one.
        source: Format of the checkpoint.
        family: Class name of the backbone, such as ``'BOATSwin'``; None if
            it cannot be determined.
        arch: ``arch`` of the backbone: a name, a dict of sizes, or None if it
            cannot be determined.
        unused: Names that were dropped: other parts of a whole model, and
            unknown keys with ``strict=False``. Computed buffers are not
            listed.
        added: Names in ``backbone`` that the checkpoint does not have: output
            norms with weight 1 and bias 0.
        head_name: Name of the head in a whole model: ``'head'`` or
            ``'decode_head'``.
    """

    backbone: dict[str, Tensor]
    head: dict[str, Tensor]
    source: str
    family: str | None
    arch: str | dict | None
    unused: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    head_name: str = 'head'

    def describe(self) -> str:
        """Family and arch, or the format if the family is unknown."""
        if self.family is None:
            return f'format {self.source}'
        arch = '' if self.arch is None else f' arch={self.arch!r}'
        return f'{self.family}{arch}'

    def whole(self) -> dict[str, Tensor]:
        """State dict of a whole model: backbone and head."""
        parts = {'backbone': self.backbone, self.head_name: self.head}
        return {
            f'{part}.{name}': value
            for part, state in parts.items()
            for name, value in state.items()
        }


def source_names() -> tuple[str, ...]:
    """Names of the formats that :func:`convert` knows."""
    return tuple(_FORMATS)


def detect_source(state_dict: dict[str, Tensor]) -> str:
    """Detect the format of a state dict from its keys.

    Args:
        state_dict: Tensors of a backbone, a classifier or a whole model with
            its backbone under ``backbone.`` or ``encoder.``.

    Returns:
        One of :func:`source_names`: ``'mmattn'``, ``'openmmlab_swin'``
        (mmpretrain, mmdet, mmseg), ``'swin'`` (microsoft, timm),
        ``'torchvision_swin'``, or the official code of a family, such as
        ``'boat_cswin'``.

    Raises:
        UnknownFormat: If it is none of these; the message has some keys.
    """
    source = _detect(state_dict)
    if source is None:
        raise UnknownFormat(
            f'the {len(state_dict)} keys of the checkpoint are of no known '
            f'format ({", ".join(_FORMATS)}): {list_names(state_dict)}',
            state_dict,
        )
    return source


def find_prefixes(state_dict: dict[str, Tensor]) -> list[str]:
    """Find prefixes below which the keys are of a known format.

    Of nested prefixes the shortest is returned, so that heads are found too.
    """
    parts = (key.split('.')[:-1][:_MAX_PARTS] for key in state_dict)
    prefixes = {
        '.'.join(names[:count]) + '.'
        for names in parts
        for count in range(1, len(names) + 1)
    }
    found: list[str] = []
    for prefix in sorted(prefixes, key=lambda prefix: prefix.count('.')):
        if prefix.startswith(tuple(found)):
            continue
        if _detect(select_prefix(state_dict, prefix)) is not None:
            found.append(prefix)
    return sorted(found)


def select_prefix(
    state_dict: dict[str, Tensor], prefix: str
) -> dict[str, Tensor]:
    """Return the tensors below a prefix, without it.

    Args:
        prefix: With or without the dot at its end.
    """
    prefix = prefix.rstrip('.') + '.'
    return {
        key.removeprefix(prefix): value
        for key, value in state_dict.items()
        if key.startswith(prefix)
    }


def convert(
    state_dict: dict[str, Tensor],
    source: str = 'auto',
    strict: bool = True,
    prefix: str | None = None,
) -> Converted:
    """Convert the names of a checkpoint to mmattn's.

    The result loads strictly: ``BOATSwin(arch=c.arch).load_state_dict(
    c.backbone)`` (``AttentionPyramid`` for Swin). Classification checkpoints
    lack the output norms of the first three stages, which are added with
    weight 1 and bias 0. In a whole model everything outside of the backbone
    goes to ``head`` or ``unused``. For an ``'enlca'`` checkpoint ``backbone``
    is for ``ENLCA(**c.arch)``; if there are several, each keeps its prefix.

    Args:
        state_dict: Tensors as returned by :func:`.load_file`. They are shared
            with the result unless they have to be changed.
        source: A format of :func:`source_names`, or ``'auto'``.
        strict: Whether unknown keys in the backbone are an error.
        prefix: Prefix of the model in the checkpoint, such as ``'teacher'``.
            Defaults to None.

    Raises:
        UnknownFormat: If the format is unknown, or there is no key with the
            prefix.
        UnknownKeys: If the backbone has keys that the format does not have.
        ValueError: If ``source`` is unknown, or tensors have unexpected
            shapes.
    """
    if prefix:
        keys = state_dict
        state_dict = select_prefix(state_dict, prefix)
        if not state_dict:
            raise UnknownFormat(
                f'no key of the checkpoint has the prefix {prefix!r}: '
                f'{list_names(keys)}',
                keys,
            )
    if source == 'auto':
        source = detect_source(state_dict)
    elif source not in _FORMATS:
        raise ValueError(
            f"unknown format {source!r}; use 'auto' or one of "
            f'{", ".join(_FORMATS)}'
        )
    inside, outside = _split_prefix(state_dict)
    form = _FORMATS[source]
    try:
        renamed = form.rename(inside)
        if renamed.misfits and strict:
            raise UnknownKeys(
                f'the checkpoint has {len(renamed.misfits)} keys that the '
                f'format {source} does not have: '
                f'{list_names(renamed.misfits)}',
                'strict=False',
            )
        if not renamed.backbone:
            raise UnknownFormat(
                f'the checkpoint has no keys of the format {source}: '
                f'{list_names(state_dict)}',
                state_dict,
            )
        added = _add_output_norms(renamed.backbone)
        family, arch = family_and_arch(renamed.backbone)
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RuntimeError,
        TypeError,
    ) as error:
        # Conversion relies on the shapes of a published checkpoint.
        raise ValueError(
            'the tensors of the checkpoint have unexpected shapes '
            f'({type(error).__name__}: {str(error)[:100]})'
        ) from error
    head = dict(renamed.head)
    unused = [*renamed.misfits]
    for name, value in outside.items():
        if new := form.name_in_head(name):
            head[new] = value
        else:
            unused.append(name)
    return Converted(
        renamed.backbone,
        head,
        source,
        family,
        arch,
        unused + renamed.outside,
        added,
        form.head_name,
    )


def _split_prefix(
    state: dict[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of the backbone without its prefix, and all others."""
    for prefix in _PREFIXES:
        inside = select_prefix(state, prefix)
        if inside:
            rest = {k: x for k, x in state.items() if not k.startswith(prefix)}
            return inside, rest
    return dict(state), {}


def _detect(state: dict[str, Tensor]) -> str | None:
    keys = _split_prefix(state)[0]
    for name, form in _FORMATS.items():
        if all(
            any(re.match(mark, key) for key in keys) for mark in form.marks
        ):
            return name
    return None


def _add_output_norms(backbone: dict[str, Tensor]) -> list[str]:
    added = []
    if 'integrator.norm.weight' in backbone:  # it has no output norms
        return added
    for stage in stage_depths(backbone):
        like = backbone.get(f'stages.{stage}.blocks.0.norm1.weight')
        if like is None or f'norm{stage}.weight' in backbone:
            continue
        backbone[f'norm{stage}.weight'] = torch.ones_like(like)
        backbone[f'norm{stage}.bias'] = torch.zeros_like(like)
        added += [f'norm{stage}.weight', f'norm{stage}.bias']
    return added
