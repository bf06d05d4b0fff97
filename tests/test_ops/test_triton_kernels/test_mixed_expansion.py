import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from mmattn.ops import mixed_expansion

CASES = [  # map, channels of a head, sides, channels of a widened group
    ((1, 3, 5), 4, (3, 5, 7, 9), 8),
    ((2, 4, 3), 3, (5, 1), 3),
    ((1, 2, 1), 5, (3,), 1),
]


def inputs(size, c, sides, e, device='cpu', dtype=torch.float32):
    h = len(sides)
    shapes = [
        (*size, h * c),
        (c * e, h),
        (c * e,),
        *((c, 1, side, side) for side in sides),
        *((c,) for _ in sides),
    ]
    return [torch.randn(shape).to(device, dtype) for shape in shapes]


def expand(x, matrices, bias, *parameters, impl):
    heads = len(parameters) // 2
    weights, biases = parameters[:heads], parameters[heads:]
    return mixed_expansion(x, weights, biases, matrices, bias, impl)


@pytest.fixture
def check(check_result_against_definition):
    def run(*case, dtype=torch.float32, **options):
        check_result_against_definition(
            expand, inputs(*case), dtype, **options
        )

    return run


@pytest.mark.parametrize('case', CASES)
def test_float32(check, case):
    check(*case)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(check, dtype):
    check((1, 3, 4), 4, (3, 5), 4, dtype=dtype)


def test_strides(check):
    def lay_out(x):
        if x.ndim == 1:
            return x
        return x.transpose(-1, 1).contiguous().transpose(-1, 1)

    check((1, 3, 4), 4, (3, 5), 4, stride_as=lay_out)


def test_more_of_all_than_a_program_holds(check, monkeypatch):
    from mmattn.ops.triton_kernels import mixed_convolution

    monkeypatch.setattr(mixed_convolution, '_CHANNELS', 4)
    monkeypatch.setattr(mixed_convolution, '_VALUES', 32)
    check((1, 3, 5), 6, (3, 1), 3)


def test_no_image(device):
    tensors = inputs((0, 3, 5), 4, (3, 5), 4, device)
    assert expand(*tensors, impl='triton').shape == (0, 3, 5, 16)


def test_it_is_for_inference(device):
    tensors = inputs((1, 3, 5), 4, (3, 5), 4, device)
    tensors[-1].requires_grad_()
    with pytest.raises(RuntimeError) as error:
        expand(*tensors, impl='triton')
    assert str(error.value) == (
        "mixed_expansion cannot run impl 'triton': it is for inference, got "
        'tensors that ask for a gradient'
    )
    with torch.no_grad():
        expand(*tensors, impl='triton')


def test_autocast_narrows_as_the_parts(device):
    tensors = inputs((1, 3, 4), 4, (3, 5), 4, device)
    with torch.autocast(device.type, torch.bfloat16):
        outs = [expand(*tensors, impl=x) for x in ('reference', 'triton')]
    assert [out.dtype for out in outs] == [torch.bfloat16] * 2
    torch.testing.assert_close(*outs, rtol=0.02, atol=0.1)


def test_operator_keeps_the_rules_of_torch_library(device):
    from mmattn.ops.triton_kernels.mixed_expansion import mixed_expansion

    x, taps, bias, matrices, matrix_bias = (
        torch.randn(shape, device=device)
        for shape in ((1, 2, 3, 4), (10, 2), (2, 2), (6, 2), (6,))
    )
    args = (x, taps, bias, [3, 1], matrices, matrix_bias)
    torch.library.opcheck(mixed_expansion, args)


def test_compiled_for_all_sizes_at_once(device):
    def call(*tensors):
        return expand(*tensors, impl='triton')

    torch._dynamo.reset()
    counter = CompileCounterWithBackend('eager')
    compiled = torch.compile(
        call, fullgraph=True, dynamic=True, backend=counter
    )
    # No two axes alike, which a compiler would take for one.
    for size in ((2, 4, 6), (2, 6, 4)):
        tensors = inputs(size, 5, (3, 1), 7, device)
        assert torch.equal(compiled(*tensors), call(*tensors))
    assert counter.frame_count == 1


def test_a_layer_takes_it_in_inference(device):
    attentions = pytest.importorskip(
        'mmattn.attentions', reason='layers need mmengine'
    )
    ScaleAwareModulation = attentions.ScaleAwareModulation
    layer = ScaleAwareModulation(8, 2, impl='triton').to(device).eval()
    plain = ScaleAwareModulation(8, 2, impl='reference').to(device).eval()
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(1, 3, 4, 8, device=device)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), plain(x))
    # With gradients the convolutions alone.
    layer(x).sum().backward()
    assert layer.expand.weight.grad.abs().sum() > 0
