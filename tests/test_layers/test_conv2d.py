import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from mmattn.layers import Conv2d


def test_is_the_convolution_of_pytorch():
    conv, plain = Conv2d(3, 4, 3, 2, 1), nn.Conv2d(3, 4, 3, 2, 1)
    plain.load_state_dict(conv.state_dict())
    x = torch.randn(2, 3, 7, 9)
    assert torch.equal(conv(x), plain(x))


@pytest.mark.usefixtures('compiler_for_all_sizes')
def test_is_one_operator_to_a_compiler_for_all_sizes():
    torch._dynamo.reset()
    counter = CompileCounterWithBackend('eager')
    conv = Conv2d(3, 4, 3, stride=2, padding=1, bias=False)
    compiled = torch.compile(
        conv, fullgraph=True, dynamic=True, backend=counter
    )
    for shape in [(2, 3, 7, 9), (17, 3, 8, 6)]:
        x = torch.randn(shape)
        torch.testing.assert_close(compiled(x), conv(x))
    (graph,) = counter.graphs
    called = {str(node.target) for node in graph.graph.nodes}
    assert 'mmattn.strided_convolution_for_any_size.default' in called
    assert 'conv2d' not in str(called)
