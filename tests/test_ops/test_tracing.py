import runpy

import torch

from mmattn.ops import compiling


def mark(x):
    return x + 1 if compiling.is_compiling() else x


def test_tells_compiling_from_running():
    x = torch.zeros(3)
    compiled = torch.compile(mark, fullgraph=True, backend='aot_eager')
    assert torch.equal(mark(x), x)
    assert torch.equal(compiled(x), x + 1)


def test_torch_before_2_3(monkeypatch):
    import torch._dynamo

    monkeypatch.delattr(torch.compiler, 'is_compiling', raising=False)
    module = runpy.run_path(compiling.__file__)
    assert module['is_compiling'] is torch._dynamo.is_compiling
