"""``init_cfg=dict(type='Pretrained', ...)`` of mmattn's backbones."""

import torch.nn as nn
from mmengine.logging import print_log
from mmengine.model import update_init_info

from mmattn.registry import WEIGHT_INITIALIZERS

from .conversion import ConversionError, Converted, convert
from .fitting import wrong_kinds
from .input_channels import adapt_stem
from .loading import load_file
from .naming import count_names

_TABLE = 'relative_position_bias_table'


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
        before = {
            name: value.clone() for name, value in module.state_dict().items()
        }
        if wrong := wrong_kinds(before, converted.backbone):
            raise ValueError(
                f'{self.checkpoint} does not fit {type(module).__name__}: '
                f'its dtypes would be cast: {count_names(wrong)}'
            )
        resized = [
            name
            for name, value in converted.backbone.items()
            if name.endswith(_TABLE)
            and name in before
            and before[name].shape != value.shape
        ]
        adapted = []
        if self.adapt_channels:
            adapted = adapt_stem(converted.backbone, before)
        try:
            missing, unexpected = module.load_state_dict(
                converted.backbone, strict=False
            )
            added = [name for name in converted.added if name in before]
            loaded = len(before) - len(missing) - len(added)
            wanted = len(before) - len(added)
            self._check(module, converted, loaded, wanted, missing, unexpected)
        except ValueError:
            module.load_state_dict(before)
            raise
        except (IndexError, RuntimeError) as error:  # wrong shapes
            module.load_state_dict(before)
            lines = [line.strip() for line in str(error).splitlines()[1:]]
            raise ValueError(
                f'{self.checkpoint} ({converted.describe()}) does not fit '
                f'{type(module).__name__}: {count_names(lines)}; check that '
                'arch and in_channels are those of the checkpoint'
            ) from error
        unused = unexpected + converted.unused
        unused += [f'{converted.head_name}.{name}' for name in converted.head]
        print_log(
            f'{type(module).__name__} loaded {loaded} of {len(before)} '
            f'tensors from {self.checkpoint} (format {converted.source}), '
            f'resized {len(resized)}, newly initialized {count_names(added)}, '
            f'missing {count_names(missing)}, unused {count_names(unused)}',
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

    def _check(
        self,
        module: nn.Module,
        converted: Converted,
        loaded: int,
        wanted: int,
        missing: list[str],
        unexpected: list[str],
    ) -> None:
        enough = loaded >= max(self.min_loaded * wanted, 1)
        if enough and not (self.strict and missing + unexpected):
            return
        if not loaded:
            advice = 'check that the checkpoint is of this family'
        elif self.strict:
            advice = (
                'check that arch is that of the checkpoint, or set '
                'strict=False in init_cfg (--partial) to load what fits'
            )
        else:
            advice = (
                f'this is less than min_loaded={self.min_loaded}: check that '
                'arch is that of the checkpoint, or lower min_loaded in '
                'init_cfg'
            )
        raise ValueError(
            f'{self.checkpoint} ({converted.describe()}) does not fit '
            f'{type(module).__name__}: loaded {loaded} of {wanted} tensors, '
            f'missing {count_names(missing)}, '
            f'unexpected {count_names(unexpected)}; {advice}'
        )

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
