"""The operations of a step, by what they take."""

import torch

from mmattn.analysis.operations import profile_operations
from mmattn.ops import linear


def test_the_longest_come_first():
    a, b = torch.rand(400, 400), torch.rand(2, 2)

    def step():
        for _ in range(5):
            a @ a
        b.cos()

    found = profile_operations(step, torch.device('cpu'), top=100)
    by_name = {operation.name: operation for operation in found}
    assert by_name['aten::mm'].calls == 5
    assert by_name['aten::cos'].calls == 1
    assert by_name['aten::mm'].seconds > by_name['aten::cos'].seconds > 0
    seconds = [operation.seconds for operation in found]
    assert seconds == sorted(seconds, reverse=True)
    assert abs(sum(operation.share for operation in found) - 1) < 1e-9


def test_only_as_many_as_asked_for():
    x = torch.rand(3)
    device = torch.device('cpu')
    assert len(profile_operations(lambda: x.cos().sin(), device, top=1)) == 1


def test_kernels_in_cpp_are_operations():
    x, weight = torch.rand(1024, 8), torch.rand(8, 8)
    device = torch.device('cpu')
    found = profile_operations(
        lambda: linear(x, weight, impl='cpp'), device, top=1
    )
    assert [operation.name for operation in found] == ['mmattn::linear']
