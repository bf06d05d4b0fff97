"""Run ONNX files in ONNX Runtime and OpenVINO, on the CPU."""

import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from .onnx import export_onnx

# The packages that each runtime needs.
ONNX_RUNTIMES = {
    'onnxruntime': ('onnxruntime', 'onnxscript'),
    'openvino': ('openvino', 'onnxscript'),
}


def check_installed(runtime: str) -> None:
    """Raise ImportError unless the packages of a runtime are installed."""
    missing = [
        name
        for name in ONNX_RUNTIMES[runtime]
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise ImportError(
            f'{runtime} needs {", ".join(missing)}; run pip install '
            f'{" ".join(missing)}'
        )


def load_onnx(path: str, runtime: str) -> Callable[[Tensor], list[Tensor]]:
    """Load an ONNX file in a runtime, with as many threads as torch has.

    The result maps a batch of float32 images on the CPU to all outputs.

    Raises:
        ImportError: If the runtime is not installed.
    """
    check_installed(runtime)
    load = dict(onnxruntime=_load_onnxruntime, openvino=_load_openvino)
    return load[runtime](str(path))


def export_and_load(
    module: nn.Module, images: Tensor, runtime: str
) -> Callable[[Tensor], list[Tensor]]:
    """Export a model for the size of some images and load it in a runtime."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'model.onnx')
        export_onnx(module, images, path)
        return load_onnx(path, runtime)


def _load_onnxruntime(path: str) -> Callable[[Tensor], list[Tensor]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that spin after a call slow down what runs next.
    options.add_session_config_entry('session.force_spinning_stop', '1')
    session = onnxruntime.InferenceSession(
        path, options, providers=['CPUExecutionProvider']
    )
    (first,) = session.get_inputs()

    def run(images: Tensor) -> list[Tensor]:
        outputs = session.run(None, {first.name: images.numpy()})
        return [torch.from_numpy(output) for output in outputs]

    return run


def _load_openvino(path: str) -> Callable[[Tensor], list[Tensor]]:
    import openvino

    # Without the second hint some processors compute in bfloat16.
    settings = dict(
        PERFORMANCE_HINT='LATENCY',
        INFERENCE_PRECISION_HINT='f32',
        INFERENCE_NUM_THREADS=torch.get_num_threads(),
    )
    core = openvino.Core()
    request = core.compile_model(path, 'CPU', settings).create_infer_request()

    def run(images: Tensor) -> list[Tensor]:
        outputs = request.infer([images.numpy()], share_inputs=True)
        return [torch.from_numpy(outputs[i]) for i in range(len(outputs))]

    return run
