"""Export to ONNX, and the runtimes that run it."""

from .onnx import export_onnx, largest_difference, output_tensors
from .runtimes import (
    ONNX_RUNTIMES,
    check_installed,
    export_and_load,
    load_onnx,
)
