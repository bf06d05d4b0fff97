"""``init_cfg=dict(type='Pretrained', ...)`` of our backbones."""

import torch.nn as nn
from mmengine.logging import print_log
from mmengine.model import update_init_info
from torch import Tensor

from mmattn.registry import WEIGHT_INITIALIZERS

from .conversion import convert
from .loading import load_file
from .naming import count_names

_TABLE = 'relative_position_bias_table'


@WEIGHT_INITIALIZERS.register_module()
class BackbonePretrained:
    """Load a backbone from any file that ``convert`` understands.

    That is our own files, bare or of a whole model, and the published ones.
    A load that fails leaves the module as it was.

    Args:
        checkpoint (str): File, or http(s) address.
        prefix (str, optional): What the names of the backbone begin with in
            the file, for models that keep it elsewhere than under
            ``backbone.``, such as ``'teacher.backbone.'``. Defaults to None.
        strict (bool): Whether a parameter that the file does not have, or a
            tensor that the module has no place for, is an error. If not,
            they are logged; a file that gives less than ``min_loaded``, or
            another shape, is an error all the same. Defaults to True.
        min_loaded (float): The share of the module's tensors that the file
            has to give, those that no classification file has (the fresh
            norms of outputs) left aside. Matters where ``strict`` is False.
            Defaults to 0.95.
        map_location (str, optional): Accepted as mmengine's ``Pretrained``
            does; tensors are always read on the CPU and copied from there.
            Defaults to None.
    """

    def __init__(
        self,
        checkpoint: str,
        prefix: str | None = None,
        strict: bool = True,
        min_loaded: float = 0.95,
        map_location: str | None = None,
    ) -> None:
        self.checkpoint = checkpoint
        self.prefix = prefix
        self.strict = strict
        self.min_loaded = min_loaded

    def __call__(self, module: nn.Module) -> None:
        """Load the file into a backbone.

        Args:
            module (nn.Module): One of our backbones.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file cannot be read, is of no known format, or
                does not fit the module; see ``strict``.
        """
        state = load_file(self.checkpoint)
        if self.prefix:
            state = self._inside(state, self.prefix)
        converted = convert(state, strict=self.strict)
        before = {
            name: value.clone() for name, value in module.state_dict().items()
        }
        resized = [
            name
            for name, value in converted.backbone.items()
            if name.endswith(_TABLE)
            and name in before
            and before[name].shape != value.shape
        ]
        try:
            missing, extra = module.load_state_dict(
                converted.backbone, strict=False
            )
            fresh = [name for name in converted.added if name in before]
            loaded = len(before) - len(missing) - len(fresh)
            self._check(
                module, loaded, len(before) - len(fresh), missing, extra
            )
        except ValueError:
            module.load_state_dict(before)
            raise
        except RuntimeError as error:  # other shapes
            module.load_state_dict(before)
            raise ValueError(
                f'{type(self).__name__} expects {self.checkpoint} to fit '
                f'{type(module).__name__}, got other shapes: '
                f'{count_names(str(error).splitlines()[1:])}; check that arch '
                'and in_channels are those of the file'
            ) from error
        rest = extra + converted.unused
        rest += [f'{converted.head_name}.{name}' for name in converted.head]
        print_log(
            f'{type(module).__name__} loaded {loaded} of {len(before)} '
            f'tensors from {self.checkpoint} (format {converted.source}), '
            f'resized {len(resized)}, fresh {count_names(fresh)}, missing '
            f'{count_names(missing)}, left over {count_names(rest)}',
            logger='current',
        )
        if hasattr(module, '_params_init_info'):
            update_init_info(
                module, f'{type(self).__name__}: load from {self.checkpoint}'
            )

    def _check(
        self,
        module: nn.Module,
        loaded: int,
        wanted: int,
        missing: list[str],
        extra: list[str],
    ) -> None:
        enough = loaded >= max(self.min_loaded * wanted, 1)
        if enough and not (self.strict and missing + extra):
            return
        advice = (
            'check that arch is the one of the file, or pass '
            'strict=False in init_cfg to load what fits'
        )
        if not loaded:
            advice = 'check that the file is of this family'
        elif not self.strict:
            advice = (
                f'that is less than min_loaded={self.min_loaded}: check that '
                'arch is the one of the file, or lower it in init_cfg to '
                'start with less'
            )
        raise ValueError(
            f'{type(self).__name__} expects {self.checkpoint} to fit '
            f'{type(module).__name__}, got {loaded} of {wanted} tensors '
            f'that do, missing {count_names(missing)}, without a place '
            f'{count_names(extra)}; {advice}'
        )

    def _inside(
        self, state: dict[str, Tensor], prefix: str
    ) -> dict[str, Tensor]:
        inside = {
            name.removeprefix(prefix): value
            for name, value in state.items()
            if name.startswith(prefix)
        }
        if not inside:
            raise ValueError(
                f'{type(self).__name__} expects names that begin with '
                f'{prefix!r} in {self.checkpoint}, got others: '
                f'{count_names(state)}; '
                'leave prefix out for a bare backbone and for backbone.*'
            )
        return inside
