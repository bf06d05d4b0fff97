"""Write files that hold tensors and nothing else."""

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
    """Write tensors by name, as .safetensors or with ``torch.save``.

    The file appears at once, whole. Any reader takes it without running
    code (``torch.load(path, weights_only=True)``).

    Args:
        state_dict: Tensors by name.
        path: Where to write; ``.safetensors`` chooses that format, every
            other ending ``torch.save``.
        force: Whether a file that is there is replaced.

    Raises:
        FileExistsError: If the file is there and ``force`` is not given.
        TypeError: If something is no tensor.
    """
    path = Path(path).expanduser()
    if path.exists() and not force:
        raise FileExistsError(
            f'save_file expects a path to a new file, got {path}, which is '
            'there; choose another name, or replace it with force (--force)'
        )
    others = {
        name: type(value).__name__
        for name, value in state_dict.items()
        if not isinstance(value, Tensor)
    }
    if others:
        raise TypeError(f'save_file expects tensors only, got {others}')
    # A view would drag the whole storage behind it into the file.
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
