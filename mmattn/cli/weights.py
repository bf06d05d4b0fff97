"""Check that the weights of a checkpoint fit the model."""

import argparse
import re
from collections.abc import Mapping
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import CheckpointLoader, Runner
from mmengine.runner.checkpoint import load_from_local
from torch import Tensor, nn

from mmattn.checkpoints.fitting import (
    Fit,
    describe_checkpoint,
    load_and_compare,
)
from mmattn.checkpoints.loading import check_file, load_file, tensors_of
from mmattn.checkpoints.whole_model import rename_published
from mmattn.errors import UsageError

# Output norms: classifiers have one, detectors and segmentors one per stage.
_OUTPUT_NORM = re.compile(r'backbone\.norm\d\.(weight|bias)')
_STATISTICS = ('running_mean', 'running_var')
# Buffers that models compute themselves.
_COMPUTED = ('relative_position_index', 'attn_mask', 'num_batches_tracked')


def add_options(
    parser: argparse.ArgumentParser, needs_heads: bool = False
) -> None:
    """Add ``--partial`` and ``--allow-nonfinite``."""
    heads = '; all weights of the heads must fit' if needs_heads else ''
    parser.add_argument(
        '--partial',
        action='store_true',
        help='load the weights that fit the model and ignore the others'
        f'{heads} (default: fail)',
    )
    parser.add_argument(
        '--allow-nonfinite',
        action='store_true',
        help='accept NaN and infinite weights (default: fail)',
    )


class CheckWeights(Hook):
    """Checks a checkpoint before the Runner loads it.

    mmengine only logs what does not fit and continues with random weights.

    Args:
        path (str): The checkpoint, for messages.
        whole (bool): Load the whole model, not only the backbone.
        partial (bool): Load what fits; only heads have to fit if ``whole``.
        allow_nonfinite (bool): Accept NaN and infinite values.
    """

    priority = 'LOWEST'

    def __init__(
        self,
        path: str,
        whole: bool,
        partial: bool = False,
        allow_nonfinite: bool = False,
    ) -> None:
        self.options = dict(
            path=path,
            whole=whole,
            partial=partial,
            allow_nonfinite=allow_nonfinite,
        )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare the checkpoint with the model.

        Raises:
            UsageError: If it does not fit.
        """
        state = tensors_of(checkpoint.get('state_dict', checkpoint))
        state = rename_published(
            runner.model,
            {key.removeprefix('module.'): x for key, x in state.items()},
        )
        fit = check_weights(
            runner.model, state, **self.options, meta=checkpoint.get('meta')
        )
        if fit.loaded < fit.total:
            runner.logger.warning(
                f'{self.options["path"]}: {fit}; what does not fit keeps its '
                'initial values'
            )
        if fit.kinds:  # mmengine would cast them
            checkpoint['state_dict'] = {
                name: x for name, x in state.items() if name not in fit.kinds
            }


def check_weights(
    model: nn.Module,
    state: Mapping[str, Tensor],
    path: str,
    whole: bool,
    partial: bool = False,
    allow_nonfinite: bool = False,
    meta: Any = None,
) -> Fit:
    """Load the weights of a checkpoint into a model that has to fit.

    Args:
        model: The model, wrapped or not.
        state: Tensors by name.
        path, whole, partial, allow_nonfinite: See :class:`CheckWeights`.
        meta: ``meta`` of the checkpoint, for messages.

    Raises:
        UsageError: If the checkpoint does not fit, or has NaN or infinite
            values.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    try:
        fit = load_and_compare(model, state)
    except ValueError as error:
        raise UsageError(
            f'checkpoint {path} does not fit {type(model).__name__}: {error}'
        ) from error
    if fit.nonfinite and not allow_nonfinite:
        raise UsageError(
            f'checkpoint {path} has NaN or infinite values in '
            f'{len(fit.nonfinite)} parameters, such as {fit.nonfinite[0]}; '
            'accept it with --allow-nonfinite'
        )
    parameters = {name for name, _ in model.named_parameters()}
    wrong = [*fit.shapes, *fit.kinds]
    wrong += [
        name
        for name in fit.missing
        if name in parameters or name.endswith(_STATISTICS)
    ]
    parts = {name for name, _ in model.named_children()}
    wrong += [
        name
        for name in fit.unexpected
        if name.split('.')[0] in parts and not name.endswith(_COMPUTED)
    ]
    if not whole and 'backbone' in parts:
        wrong = [
            name
            for name in wrong
            if name.startswith('backbone.')
            and not _OUTPUT_NORM.fullmatch(name)
        ]
    if partial:
        lacking = [x for x in wrong if x not in fit.unexpected]
        wrong = [x for x in lacking if whole and 'head' in x.split('.')[0]]
    if not wrong and fit.loaded > 0:
        return fit
    advice = '--partial loads what fits' + ', if the heads do' * whole
    if partial:
        advice = f'the heads must fit: {", ".join(wrong[:3])}'
    raise UsageError(
        f'checkpoint {path} does not fit the model: {fit}.'
        f'{describe_checkpoint(state, meta)} Use the config and the '
        'checkpoint of the same training, or convert a published checkpoint '
        f'with tools/convert_checkpoint.py; {advice}'
    )


def verify_checkpoints() -> None:
    """Check each file that mmengine reads, before it reads it."""
    schemes = ('', 'http://', 'https://')
    CheckpointLoader.register_scheme(schemes, load_from_verified, force=True)


def verify_checkpoint(path: str) -> str:
    """Check a checkpoint and return the path of the local file.

    Args:
        path: File, http(s) address or ``mmattn://NAME``.

    Raises:
        UsageError: If it does not exist or is not a valid checkpoint.
    """
    try:
        return str(check_file(path))
    except (ImportError, OSError, ValueError) as error:
        raise UsageError(str(error)) from error


def load_from_verified(filename: str, map_location: Any = None) -> Any:
    """Read a checkpoint for mmengine.

    Raises:
        UsageError: If it does not exist or is not a valid checkpoint.
    """
    file = verify_checkpoint(filename)
    try:
        if file.endswith('.safetensors'):
            return load_file(file, allow_nonfinite=True)
        content = load_from_local(file, map_location)
        if not isinstance(content.get('meta'), dict):
            content.pop('meta', None)  # hooks expect a dict
        return content
    except Exception as error:  # damaged files raise anything
        raise UsageError(
            f'checkpoint {filename} is damaged or not a checkpoint '
            f'({str(error)[:200]!r}); download or copy it again'
        ) from error
