"""Where the Triton kernels of these tests run.

On a machine with a GPU they run there: `pytest tests/test_ops` is all. On
one without, they skip, and test_interpreted.py runs them once more, in a
process of its own, through Triton's interpreter.
"""

import os

import numpy as np
import pytest
import torch

IS_INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'


def read_index(tensor):
    return int(tensor.handle.data.item())


def round_as_the_gpu(data, source, target):
    """Round float32 to the nearest bfloat16, or widen bfloat16."""
    if source.primitive_bitwidth == 16:
        return data.astype(np.uint32) << 16
    bits = torch.from_numpy(np.ascontiguousarray(data)).bfloat16()
    return bits.view(torch.uint16).numpy()


def fix_interpreter():
    """Make the interpreter do what a GPU does.

    NumPy 2.4 reads no bound of a loop from an array of one element. Numbers
    are cut off to bfloat16, not rounded, which doubles every error.
    """
    from triton import language as tl
    from triton.runtime import interpreter

    patch, convert = interpreter._patch_lang_tensor, interpreter._convert_float

    def patch_lang_tensor(tensor, scope):
        patch(tensor, scope)
        scope.set_attr(tensor, '__index__', read_index)

    def convert_float(data, source, target, rounding):
        if {source, target} == {tl.float32, tl.bfloat16}:
            return round_as_the_gpu(data, source, target)
        return convert(data, source, target, rounding)

    interpreter._patch_lang_tensor = patch_lang_tensor
    interpreter._convert_float = convert_float


if IS_INTERPRETED:
    fix_interpreter()


@pytest.fixture
def device():
    """A device that runs kernels."""
    if IS_INTERPRETED:
        return torch.device('cpu')
    if not torch.cuda.is_available():
        pytest.skip('kernels need a CUDA device, or TRITON_INTERPRET=1')
    return torch.device('cuda')


@pytest.fixture
def spread_out(device, tmp_path):
    """Lay a float16 tensor out with rows 2^30 numbers apart.

    Of a file that holds nothing but these rows, where there is no GPU.
    """

    def lay_out(x, axis):
        strides = list(x.contiguous().stride())
        strides[axis] = 2**30
        size = 2**30 * (x.shape[axis] - 1) + x.numel()
        if IS_INTERPRETED:
            file = tmp_path / str(len(list(tmp_path.iterdir())))
            memory = torch.from_file(
                str(file), shared=True, size=size, dtype=torch.float16
            )
        else:
            memory = torch.empty(size, dtype=torch.float16, device=device)
        return memory.as_strided(x.shape, strides).copy_(x)

    return lay_out


def root_mean_square(x):
    return x.double().square().mean().sqrt()


@pytest.fixture
def check_against_reference(device):
    """Compare an operation's kernels with its reference in float64.

    Results and gradients agree within 1e-5 of the largest in float32. In half
    precision their error, as a root mean square, is at most twice that of the
    reference in the same dtype.
    """

    def run(call, tensors, weights, impl):
        tensors = [x.detach().requires_grad_() for x in tensors]
        out = call(*tensors, impl=impl)
        grads = torch.autograd.grad(out, tensors, weights.to(out.dtype))
        return [out.detach(), *grads]

    def check(call, tensors, dtype, stride_as=lambda x: x):
        tensors = [x.to(device, dtype) for x in tensors]
        doubles = [x.double() for x in tensors]
        shape = call(*doubles, impl='reference').shape
        weights = torch.randn(shape, device=device).to(dtype)
        want = run(call, doubles, weights, 'reference')
        got = run(call, [stride_as(x) for x in tensors], weights, 'triton')
        plain = run(call, tensors, weights, 'reference')
        for results in zip(got, plain, want):
            compare(*results)

    return check


def compare(found, plain, exact):
    """A kernel's result, the reference's, and that in float64."""
    assert found.dtype == plain.dtype
    assert found.shape == exact.shape
    if found.dtype == torch.float32:
        scale = exact.abs().max().item()
        torch.testing.assert_close(
            found.double(), exact, rtol=0, atol=1e-5 * scale + 1e-7
        )
    else:
        allowed = 2 * root_mean_square(plain - exact) + 1e-6
        assert root_mean_square(found - exact) <= allowed
