"""Write checkpoints that hold tensors and nothing else."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor


def save_file(
    state_dict: Mapping[str, Tensor],
    path: str | os.PathLike,
    force: bool = False,
) -> None:
    """Write tensors as .safetensors or with ``torch.save``.

    The file is written under a temporary name and renamed, so it is never
    seen half written. ``torch.load(path, weights_only=True)`` reads it.

    Args:
        state_dict: Tensors by name.
        path: Where to write; a name that ends in ``.safetensors`` chooses
            that format, any other name ``torch.save``.
        force: Whether to replace an existing file.

    Raises:
        FileExistsError: If the file exists and ``force`` is not set.
        TypeError: If a value is not a tensor.
    """
    path = Path(path).expanduser()
    if path.exists() and not force:
        raise FileExistsError(
            f'{path} already exists; choose another name, or replace it '
            'with --force (in Python: force=True)'
        )
    others = {
        name: type(value).__name__
        for name, value in state_dict.items()
        if not isinstance(value, Tensor)
    }
    if others:
        raise TypeError(f'save_file writes tensors only, got {others}')
    # Saving a view would save its whole storage.
    state = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in state_dict.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}.{os.getpid()}.part')
    try:
        if path.suffix == '.safetensors':
            from safetensors.torch import save

            partial.write_bytes(save(state))
        else:
            torch.save(state, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
