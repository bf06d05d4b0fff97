"""Compare the tensors of a checkpoint with those of a model."""

import re
from collections.abc import Mapping
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .conversion import convert
from .loading import is_finite
from .naming import list_names

_SIZE = re.compile(
    r'size mismatch for ([^:]+): .*?torch\.Size\((\[[^\]]*\])\)'
    r'.*?torch\.Size\((\[[^\]]*\])\)'
)
# Counted by BatchNorm, and missing in old checkpoints.
_OPTIONAL = 'num_batches_tracked'


@dataclass
class Fit:
    """How a checkpoint fits a model, in names of the model's tensors.

    Args:
        total: Number of tensors of the model.
        missing: Tensors of the model that the checkpoint lacks.
        unexpected: Tensors that the model lacks.
        shapes: Tensors of another shape, with both shapes in words.
        kinds: Tensors that would be cast, such as from integer to float.
        nonfinite: Tensors with NaN or infinite values.
    """

    total: int
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    shapes: dict[str, str] = field(default_factory=dict)
    kinds: list[str] = field(default_factory=list)
    nonfinite: list[str] = field(default_factory=list)

    @property
    def loaded(self) -> int:
        """Number of tensors that fit."""
        wrong = len(self.missing) + len(self.shapes) + len(self.kinds)
        return self.total - wrong

    def __str__(self) -> str:
        parts = [f'{self.loaded} of {self.total} tensors fit']
        shapes = [': '.join(each) for each in self.shapes.items()]
        for names, what in (
            (shapes, 'have other shapes'),
            (self.missing, 'are missing'),
            (self.unexpected, 'are unexpected'),
            (self.kinds, 'have another kind of dtype and would be cast'),
        ):
            if names:
                parts.append(f'{len(names)} {what} ({list_names(names)})')
        return ', '.join(parts)


def load_and_compare(model: nn.Module, state: Mapping[str, Tensor]) -> Fit:
    """Load the tensors that fit and report the others.

    Args:
        model: The model, without wrappers.
        state: Tensors by name.

    Raises:
        ValueError: If the model cannot load the tensors.
    """
    own = model.state_dict()
    fit = Fit(sum(not name.endswith(_OPTIONAL) for name in own))

    def collect(module: nn.Module, keys: object) -> None:
        fit.missing += keys.missing_keys
        fit.unexpected += keys.unexpected_keys

    # Loading casts silently between float, integer, bool and complex.
    fit.kinds = [
        name
        for name, value in state.items()
        if name in own and _kind(own[name]) != _kind(value)
    ]
    state = copy(state)  # with _metadata, the versions of modules
    for name in fit.kinds:
        del state[name]
    parameters = {name for name, _ in model.named_parameters()}
    fit.nonfinite = [
        name
        for name, value in state.items()
        if name in parameters and not is_finite(value)
    ]
    handle = model.register_load_state_dict_post_hook(collect)
    try:
        model.load_state_dict(state, strict=False)
    except (IndexError, RuntimeError, ValueError) as error:
        found = _SIZE.findall(str(error))
        if not found:
            raise ValueError(
                f'the model cannot load its tensors ({str(error)[:200]})'
            ) from error
        fit.shapes = {
            name: f'{theirs} instead of {ours}' for name, theirs, ours in found
        }
    finally:
        handle.remove()
    fit.missing = [
        name
        for name in fit.missing
        if not name.endswith(_OPTIONAL) and name not in fit.kinds
    ]
    return fit


def describe_checkpoint(state: Mapping[str, Tensor], meta: Any = None) -> str:
    """Describe a checkpoint in a sentence; '' if its format is unknown.

    Args:
        state: Tensors by name.
        meta: ``meta`` of the checkpoint, which may name the config.
    """
    what = ''
    with suppress(ValueError):
        found = convert(dict(state), strict=False)
        what = f'a checkpoint of {found.describe()}'
    name = meta.get('experiment_name') if isinstance(meta, dict) else None
    if isinstance(name, str):
        config = re.sub(r'_\d{8}_\d{6}$', '', name)[:100]
        what = f'{what or "one"} that was trained with {config!r}'
    return f' It looks like {what}.' if what else ''


def _kind(x: Tensor) -> str:
    if x.is_complex():
        return 'complex'
    if x.is_floating_point():
        return 'float'
    return 'bool' if x.dtype == torch.bool else 'int'
