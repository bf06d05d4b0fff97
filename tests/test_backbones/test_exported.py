"""Backbones as graphs without Python: torch.export and torch.jit.trace."""

import io

import pytest
import torch

from mmattn.registry import MODELS


def build(name, arch, stages=4):
    torch.manual_seed(0)
    cls = MODELS.get(name)
    return cls(arch=arch, out_indices=range(stages)).eval()


def check(found, want):
    for a, b in zip(found, want, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


def export(model, multiple=1):
    """For any batch and size but those that PyTorch compiles apart."""
    size = {
        axis: step * torch.export.Dim(name, min=least)
        for axis, step, name, least in [
            (0, 1, 'batch', 2),
            (2, multiple, 'height', 40 // multiple),
            (3, multiple, 'width', 40 // multiple),
        ]
    }
    images = torch.randn(2, 3, 64, 96)
    return torch.export.export(
        model, (images,), dynamic_shapes={'x': size}, strict=False
    )


@pytest.mark.usefixtures('compiler_for_all_sizes')
@pytest.mark.parametrize(
    'stages', [2, pytest.param(4, marks=pytest.mark.slow)]
)
@torch.no_grad()
def test_one_program_for_all_sizes(nano, stages):
    model = build(*nano, stages)
    program = export(model).module()
    for shape in [(2, 96, 64), (3, 101, 147), (5, 224, 224)]:
        images = torch.randn(shape[0], 3, *shape[1:])
        check(program(images), model(images))


@pytest.mark.usefixtures('compiler_for_all_sizes')
@pytest.mark.parametrize('name', ['BOATSwin', 'BOATCSWin'])
@torch.no_grad()
def test_a_program_of_one_size_holds_operators_of_torch_alone(name):
    model = build(name, 'nano', 2)
    images = torch.randn(2, 3, 64, 96)
    axes = {0: torch.export.Dim('batch', min=2)}
    program = torch.export.export(
        model, (images,), dynamic_shapes={'x': axes}, strict=False
    )
    images = torch.randn(17, 3, 64, 96)
    check(program.module()(images), model(images))
    called = [node.target for node in program.graph.nodes]
    assert not any('mmattn' in str(target) for target in called)


@pytest.mark.slow
@pytest.mark.usefixtures('compiler_for_all_sizes')
@torch.no_grad()
def test_one_program_for_multiples_of_16():
    model = build('PerspectiveEncoder', 'nano', 5)
    program = export(model, 16).module()
    for shape in [(2, 96, 64), (17, 80, 112)]:
        images = torch.randn(shape[0], 3, *shape[1:])
        check(program(images), model(images))


@pytest.mark.usefixtures('compiler_for_all_sizes')
@torch.no_grad()
def test_a_saved_program():
    model, file = build('BOATCSWin', 'nano', 1), io.BytesIO()
    torch.export.save(export(model), file)
    file.seek(0)
    program = torch.export.load(file).module()
    images = torch.randn(3, 3, 101, 147)
    check(program(images), model(images))


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
@pytest.mark.filterwarnings('ignore:`torch.jit:DeprecationWarning')
@torch.no_grad()
def test_trace_of_one_size(nano):
    model = build(*nano)
    images, others = torch.randn(2, 2, 3, 101, 147)
    traced = torch.jit.trace(model, images)
    check(traced(others), model(others))
