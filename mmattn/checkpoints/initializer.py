"""``init_cfg=dict(type='Pretrained', ...)`` of mmattn's backbones."""

import torch.nn as nn
from mmengine.logging import print_log
from mmengine.model import update_init_info

from mmattn.registry import WEIGHT_INITIALIZERS

from .conversion import ConversionError, Converted, convert
from .fitting import Fit, load_and_compare
from .input_channels import adapt_stem
from .loading import load_file
from .naming import count_names


@WEIGHT_INITIALIZERS.register_module()
class BackbonePretrained:
    """Load a backbone from any checkpoint that ``convert`` understands.

    These are mmattn's own checkpoints, of a bare backbone or a whole model,
    and the published ones. A failed load leaves the module unchanged.

    Args:
        checkpoint (str): File, http(s) address or ``mmattn://NAME``.
        prefix (str, optional): Prefix of the backbone's keys in checkpoints
            that keep it elsewhere than under ``backbone.``, such as
            ``'teacher.backbone'``. Defaults to None.
        strict (bool): Whether missing parameters and unexpected tensors are
            errors. If False they are logged; wrong shapes, and fewer tensors
            than ``min_loaded`` requires, are still errors. Defaults to True.
        min_loaded (float): Fraction of the module's tensors that the
            checkpoint has to provide. Output norms that no classification
            checkpoint has are not counted. Matters with ``strict=False``.
            Defaults to 0.95.
        adapt_channels (bool): Whether to adapt the stem of a checkpoint for
            RGB images to the module's ``in_channels``, see
            :func:`.adapt_input_channels`. Defaults to True.
        allow_nonfinite (bool): Accept NaN and infinite values. Defaults to
            False.
        map_location (str, optional): Accepted for compatibility with
            mmengine's ``Pretrained`` and ignored: tensors are read on the CPU
            and copied from there. Defaults to None.
    """

    def __init__(
        self,
        checkpoint: str,
        prefix: str | None = None,
        strict: bool = True,
        min_loaded: float = 0.95,
        adapt_channels: bool = True,
        allow_nonfinite: bool = False,
        map_location: str | None = None,
    ) -> None:
        self.checkpoint = checkpoint
        self.prefix = prefix
        self.strict = strict
        self.min_loaded = min_loaded
        self.adapt_channels = adapt_channels
        self.allow_nonfinite = allow_nonfinite

    def __call__(self, module: nn.Module) -> None:
        """Load the checkpoint into a backbone.

        Args:
            module (nn.Module): One of mmattn's backbones.

        Raises:
            FileNotFoundError: If the file does not exist.
            ValueError: If the file cannot be read, is of no known format, or
                does not fit the module; see ``strict``.
        """
        converted = self._convert()
        state = converted.backbone
        before = {
            name: value.clone() for name, value in module.state_dict().items()
        }
        adapted = adapt_stem(state, before) if self.adapt_channels else []
        added = [name for name in converted.added if name in before]
        try:
            fit = load_and_compare(module, state)
            fit.total -= len(added)
            if advice := self._advise(fit):
                raise ValueError(f'{fit}; {advice}')
        except ValueError as error:
            module.load_state_dict(before)
            raise ValueError(
                f'{self.checkpoint} ({converted.describe()}) does not fit '
                f'{type(module).__name__}: {error}'
            ) from error
        resized = sum(
            name in before and before[name].shape != value.shape
            for name, value in state.items()
        )
        unused = fit.unexpected + converted.unused
        unused += [f'{converted.head_name}.{name}' for name in converted.head]
        print_log(
            f'{type(module).__name__} loaded {fit.loaded} of '
            f'{fit.total + len(added)} tensors from {self.checkpoint} '
            f'(format {converted.source}), '
            f'resized {resized}, newly initialized {count_names(added)}, '
            f'missing {count_names(fit.missing)}, '
            f'unused {count_names(unused)}',
            logger='current',
        )
        for name in adapted:
            print_log(
                f'{type(module).__name__} adapted {name} of RGB images to '
                f'{before[name].shape[1]} input channels',
                logger='current',
            )
        if hasattr(module, '_params_init_info'):
            update_init_info(
                module, f'{type(self).__name__}: load from {self.checkpoint}'
            )

    def _advise(self, fit: Fit) -> str:
        """What to do if too little fits; '' if enough does."""
        if fit.kinds:
            return 'save its weights as floating-point numbers'
        if fit.shapes:
            return (
                'check that arch and in_channels are those of the checkpoint'
            )
        if fit.loaded == 0:
            return 'check that the checkpoint is of this family'
        if self.strict and (fit.missing or fit.unexpected):
            return (
                'check that arch is that of the checkpoint, or set '
                'strict=False in init_cfg (--partial) to load what fits'
            )
        if fit.loaded < self.min_loaded * fit.total:
            return (
                f'this is less than min_loaded={self.min_loaded}: check that '
                'arch is that of the checkpoint, or lower min_loaded in '
                'init_cfg'
            )
        return ''

    def _convert(self) -> Converted:
        try:
            return convert(
                load_file(self.checkpoint, self.allow_nonfinite),
                strict=self.strict,
                prefix=self.prefix,
            )
        except ConversionError as error:
            advice = 'convert it with tools/convert_checkpoint.py'
            if error.option:
                advice = f'set {error.option} in init_cfg, or {advice}'
            raise ValueError(
                f'{self.checkpoint}: {error.problem}; {advice}'
            ) from error
