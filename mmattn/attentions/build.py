"""Attention layers from their configs."""

import torch.nn as nn

from mmattn.registry import MODELS


def build_attention(owner: str, cfg: dict, **sizes: int) -> nn.Module:
    """Build an attention layer inside of another module.

    Args:
        owner: Name of the module, for messages.
        cfg: ``type``, a registered name or a class, and arguments.
        **sizes: Arguments that the module decides.

    Raises:
        TypeError: If the config has no ``type`` or an argument is unknown.
        ValueError: If the type is not registered.
    """
    if not isinstance(cfg, dict) or 'type' not in cfg:
        raise TypeError(
            f"{owner} expects an attention as a dict with the key 'type', got "
            f'{cfg!r}'
        )
    name = cfg['type']
    # Not by `MODELS.build`, which looks names up in the scope of the codebase
    # that builds the model.
    layer = name if isinstance(name, type) else MODELS.get(name)
    if layer is None:
        known = sorted(
            k
            for k, v in MODELS.module_dict.items()
            if v.__module__.startswith('mmattn.attentions')
        )
        raise ValueError(
            f'{owner} expects registered attentions, such as {known}, got '
            f'{name!r}'
        )
    return layer(**sizes, **{k: cfg[k] for k in cfg if k != 'type'})
