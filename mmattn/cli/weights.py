"""Whether the weights of a file arrive in the model that reads them."""

from typing import Any

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn

from mmattn.errors import UsageError


def refuse_foreign_weights(
    model: nn.Module, path: str | None, needed: str | None = None
) -> None:
    """Let a model raise when it reads a checkpoint of another model.

    mmengine logs what does not fit and goes on with random weights. What is
    missing is looked at after the model has read the file, since models may
    rename what they find there.

    Args:
        model: The model, wrapped or not; a hook is added to it.
        path: The file, for the message; None where there is none to read.
        needed: How the names begin of the parameters that have to come from
            the file, all of them: ``'backbone.'``, or ``''`` for the whole
            model. Defaults to None: some have to.

    Raises:
        UsageError: Later, from the reading: if no parameter comes from the
            file, or one that is needed does not.
    """
    if path is None:
        return
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    parameters = {name for name, _ in model.named_parameters()}

    def check(module: nn.Module, keys: Any) -> None:
        missing = parameters.intersection(keys.missing_keys)
        lost = []
        if needed is not None:
            lost = sorted(x for x in missing if x.startswith(needed))
        if parameters and missing == parameters:
            what = 'none of whose names is one of the model'
        elif lost:
            part = needed.rstrip('.') or 'model'
            what = (
                f'which lacks {len(lost)} parameters of the {part} '
                f'({", ".join(lost[:3])}{", ..." if len(lost) > 3 else ""})'
            )
        else:
            return
        raise UsageError(
            f'a checkpoint of this model is expected, got {path}, {what}; '
            'give the file that was trained with this config, or put '
            'published weights into our names with `python '
            f'tools/convert_checkpoint.py {path} OUT`'
        )

    model.register_load_state_dict_post_hook(check)
