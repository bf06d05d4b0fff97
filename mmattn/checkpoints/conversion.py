"""Recognise a checkpoint's format and put it into our names."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from .architecture import family_and_arch, stage_depths
from .cswin import rename_boat_cswin, rename_cswin
from .enlca import rename_enlca
from .naming import Renamed, list_names
from .own import rename_own
from .perspective import name_in_perspective_head, rename_perspective
from .smt import rename_smt
from .swin import rename_boat_swin, rename_openmmlab_swin, rename_swin

# A whole model keeps its backbone under one of these.
_PREFIXES = ('backbone.', 'encoder.')


def _name_in_classifier(name: str) -> str | None:
    return name.removeprefix('head.') if name.startswith('head.fc.') else None


class _Head(NamedTuple):
    name: str  # in a whole model of the host
    new_name: Callable[[str], str | None]  # of what is outside the backbone


_CLASSIFIER = _Head('head', _name_in_classifier)


class _Format(NamedTuple):
    marks: tuple[str, ...]  # patterns; each one matches some name
    rename: Callable[[dict[str, Tensor]], Renamed]
    head: _Head = _CLASSIFIER


_WINDOW_TABLE = r'attn\.relative_position_bias_table'
# The first format whose marks are all there is the one.
_FORMATS = {
    'mmattn': _Format(
        (r'(stem|integrator)\.', r'stages\.\d\.blocks\.0\.'), rename_own
    ),
    'boat_swin': _Format(
        (r'patch_embed\.proj\.', r'layers\.0\.blocks\.\d+\.attnC\.'),
        rename_boat_swin,
    ),
    'swin': _Format(
        (r'patch_embed\.proj\.', rf'layers\.0\.blocks\.0\.{_WINDOW_TABLE}'),
        rename_swin,
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
        _Head('decode_head', name_in_perspective_head),
    ),
    'enlca': _Format(
        (r'(.*\.)?conv_match1\.0\.', r'(.*\.)?attn_fn\.projection_matrix$'),
        rename_enlca,
    ),
}


@dataclass
class Converted:
    """A checkpoint in our names.

    Args:
        backbone: State dict of our backbone, made for strict loading.
        head: State dict of mmpretrain's ``LinearClsHead`` (``fc.weight``,
            ``fc.bias``) or, of a Perspective+ U-Net, of ``PerspectiveHead``;
            empty when the file has neither.
        source: The format that it came in.
        family: Our backbone's registered name without the scope,
            such as ``'BOATSwin'``; None when the names do not tell.
        arch: The backbone's ``arch``: a name, a dict of sizes that has none,
            or None when the names do not tell.
        unused: Names in the file that went nowhere: other parts of a whole
            model, and misfits with ``strict=False``. Buffers that a model
            computes by itself are dropped without a word.
        added: Names in ``backbone`` that the file does not have: output
            norms, with the values 1 and 0 of a fresh LayerNorm.
        head_name: What a whole model calls the head: ``'head'`` or
            ``'decode_head'``.
    """

    backbone: dict[str, Tensor]
    head: dict[str, Tensor]
    source: str
    family: str | None
    arch: str | dict | None
    unused: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    head_name: str = _CLASSIFIER.name

    def whole(self) -> dict[str, Tensor]:
        """State dict of a host's whole model: backbone and head."""
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
    """Name the format of a state dict by its names.

    Args:
        state_dict: Tensors by name, of a backbone, a classifier or a whole
            model that keeps its backbone under ``backbone.`` or
            ``encoder.``.

    Returns:
        A name of :func:`source_names`: ``'mmattn'`` (our own),
        ``'openmmlab_swin'`` (mmpretrain, mmdet, mmseg), or that of the
        official code of a family, such as ``'boat_cswin'``.

    Raises:
        ValueError: If it is none of these; the message names some keys.
    """
    return _detect(_split_prefix(state_dict)[0])


def convert(
    state_dict: dict[str, Tensor], source: str = 'auto', strict: bool = True
) -> Converted:
    """Put a checkpoint into our names.

    ``BOATSwin(arch=c.arch).load_state_dict(c.backbone)`` (for Swin
    formats ``AttentionPyramid``) then loads it strictly. A classification
    file has no norms of the first three stages' outputs: fresh ones are
    added, so that it starts a detector. Where the file holds a whole model,
    everything outside of its backbone goes to ``head`` (a classifier's
    ``head.fc``, the decoder of a Perspective+ U-Net) or ``unused``, and is
    never a misfit. Of an ``'enlca'`` file,
    ``backbone`` is for ``ENLCA(**c.arch)``; where there are several, each
    stands under its place in the file.

    Args:
        state_dict: Tensors by name, as :func:`.load_file` returns them. The
            tensors are shared with the result, where they need no change.
        source: A format of :func:`detect_source`, or ``'auto'``.
        strict: Whether a name in the backbone that fits nowhere is an error.

    Raises:
        ValueError: If the format is unknown or a name fits nowhere.
    """
    try:
        return _convert(state_dict, source, strict)
    except (ArithmeticError, LookupError, RuntimeError, TypeError) as error:
        # Conversion relies on the shapes of a published checkpoint.
        raise ValueError(
            'the tensors of the checkpoint have unexpected shapes '
            f'({type(error).__name__}: {str(error)[:100]})'
        ) from error


def _convert(
    state_dict: dict[str, Tensor], source: str, strict: bool
) -> Converted:
    inside, outside = _split_prefix(state_dict)
    if source == 'auto':
        source = _detect(inside)
    elif source not in _FORMATS:
        raise ValueError(
            f"convert expects source 'auto' or one of "
            f'{", ".join(_FORMATS)}, got {source!r}'
        )
    form = _FORMATS[source]
    renamed = form.rename(inside)
    if renamed.misfits and strict:
        raise ValueError(
            f'convert expects the names of the format {source}, got '
            f'{len(renamed.misfits)} that fit nowhere: '
            f'{list_names(renamed.misfits)}; '
            'pass strict=False to leave them out'
        )
    if not renamed.backbone:
        raise ValueError(
            f'convert expects a backbone of the format {source}, got none of '
            f'its names: {list_names(state_dict)}'
        )
    names = {name: form.head.new_name(name) for name in outside}
    head = renamed.head | {
        new: outside[name] for name, new in names.items() if new
    }
    unused = [name for name, new in names.items() if not new]
    unused += renamed.outside
    added = _add_output_norms(renamed.backbone)
    family, arch = family_and_arch(renamed.backbone)
    return Converted(
        renamed.backbone,
        head,
        source,
        family,
        arch,
        renamed.misfits + unused,
        added,
        form.head.name,
    )


def _split_prefix(
    state: dict[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The backbone's tensors without their prefix, and all others."""
    for prefix in _PREFIXES:
        inside = {
            name.removeprefix(prefix): value
            for name, value in state.items()
            if name.startswith(prefix)
        }
        if inside:
            outside = {
                name: value
                for name, value in state.items()
                if not name.startswith(prefix)
            }
            return inside, outside
    return dict(state), {}


def _detect(state: dict[str, Tensor]) -> str:
    for name, form in _FORMATS.items():
        if all(
            any(re.match(mark, key) for key in state) for mark in form.marks
        ):
            return name
    raise ValueError(
        'detect_source expects the names of a known format '
        f'({", ".join(_FORMATS)}), got {len(state)} others: '
        f'{list_names(state)}; '
        'check that it is a checkpoint of one of these models'
    )


def _add_output_norms(backbone: dict[str, Tensor]) -> list[str]:
    added = []
    if 'integrator.norm.weight' in backbone:  # its maps have no norms
        return added
    for stage in range(len(stage_depths(backbone))):
        like = backbone.get(f'stages.{stage}.blocks.0.norm1.weight')
        if like is None or f'norm{stage}.weight' in backbone:
            continue
        backbone[f'norm{stage}.weight'] = torch.ones_like(like)
        backbone[f'norm{stage}.bias'] = torch.zeros_like(like)
        added += [f'norm{stage}.weight', f'norm{stage}.bias']
    return added
