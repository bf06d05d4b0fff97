"""Write a model as ONNX, with standard operators only."""

import importlib.util
import logging
import os
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from mmattn.ops import reference_only


def export_onnx(model: nn.Module, images: Tensor, path: str) -> None:
    """Export a model for the size of some images.

    Args:
        model: In evaluation mode.
        images: A batch ``(B, C, H, W)``; the file takes this shape only.
        path: File to write; large weights are put beside it.

    Raises:
        ImportError: If onnxscript is missing or torch is older than 2.5.
    """
    if importlib.util.find_spec('onnxscript') is None:
        raise ImportError(
            'export to ONNX needs onnxscript; run pip install onnxscript'
        )
    if not hasattr(torch.onnx, 'ONNXProgram'):
        raise ImportError(
            f'export to ONNX needs torch 2.5 or newer, got {torch.__version__}'
        )
    # The exporter warns about its own deprecations.
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), reference_only():
            warnings.simplefilter('ignore')
            torch.onnx.export(
                model, (images,), os.fspath(path), dynamo=True, verbose=False
            )
    finally:
        logging.disable(logging.NOTSET)


def output_tensors(out: Any) -> list[Tensor]:
    """The tensors that a model returns, in a list, tuple or dict."""
    return [x for x in tree_flatten(out)[0] if isinstance(x, Tensor)]


def largest_difference(expected: Any, actual: Any) -> float:
    """Largest difference of two outputs, over the largest expected value."""
    pairs = zip(output_tensors(expected), output_tensors(actual), strict=True)
    differences, values = zip(
        *(((x - y).abs().max(), x.abs().max()) for x, y in pairs)
    )
    return (max(differences) / max(values)).item()
