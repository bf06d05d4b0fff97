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


def export(model, size=(64, 96), multiple=None):
    """For any batch and, with ``multiple``, for sides that it divides."""
    axes = {0: torch.export.Dim('batch', min=2)}
    if multiple:
        axes[2] = multiple * torch.export.Dim('height', min=2)
        axes[3] = multiple * torch.export.Dim('width', min=2)
    return torch.export.export(
        model,
        (torch.randn(2, 3, *size),),
        dynamic_shapes={'x': axes},
        strict=False,
    )


@pytest.mark.usefixtures('compiler')
@torch.no_grad()
def test_a_program_for_all_batches_holds_operators_of_torch_alone(nano):
    model = build(*nano, stages=2)
    program = export(model)
    for batch in (3, 17):
        images = torch.randn(batch, 3, 64, 96)
        check(program.module()(images), model(images))
    called = [node.target for node in program.graph.nodes]
    assert not any('mmattn' in str(target) for target in called)


@pytest.mark.usefixtures('compiler')
@pytest.mark.parametrize(
    'name, arch, multiple',
    [('SMT', 'nano', 32), ('AttentionPyramid', 'swin-nano', 224)],
)
@torch.no_grad()
def test_a_program_for_many_sizes(name, arch, multiple):
    model = build(name, arch, stages=2)
    program = export(model, (2 * multiple, 3 * multiple), multiple).module()
    images = torch.randn(2, 3, 3 * multiple, 2 * multiple)
    check(program(images), model(images))


@pytest.mark.usefixtures('compiler')
@torch.no_grad()
def test_a_saved_program():
    model, file = build('BOATCSWin', 'nano', 1), io.BytesIO()
    torch.export.save(export(model), file)
    file.seek(0)
    program = torch.export.load(file).module()
    images = torch.randn(3, 3, 64, 96)
    check(program(images), model(images))


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
@pytest.mark.filterwarnings('ignore:`torch.jit:DeprecationWarning')
@torch.no_grad()
def test_trace_of_one_size(nano):
    model = build(*nano)
    images, others = torch.randn(2, 2, 3, 101, 147)
    traced = torch.jit.trace(model, images)
    check(traced(others), model(others))
