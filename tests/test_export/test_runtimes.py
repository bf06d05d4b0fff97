"""ONNX files in their runtimes."""

import pytest
import torch

from mmattn import export
from mmattn.backbones import AttentionPyramid
from mmattn.export import check_installed, export_and_load, largest_difference


@pytest.mark.parametrize('runtime', export.ONNX_RUNTIMES)
def test_a_backbone_computes_the_same(runtime):
    for package in export.ONNX_RUNTIMES[runtime]:
        pytest.importorskip(package)
    model = AttentionPyramid('swin-nano').eval()
    images = torch.rand(2, 3, 40, 50)
    run = export_and_load(model, images, runtime)
    with torch.no_grad():
        expected = model(images)
    assert largest_difference(expected, run(images)) < 1e-5


@pytest.mark.parametrize('runtime', export.ONNX_RUNTIMES)
def test_missing_packages_are_named(runtime, monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(ImportError, match=f'pip install {runtime}'):
        check_installed(runtime)


def test_difference_is_relative_to_the_largest_value():
    expected = [torch.tensor([1.0, -4.0]), dict(x=torch.tensor([2.0]))]
    actual = (torch.tensor([1.0, -4.0]), torch.tensor([3.0]))
    assert largest_difference(expected, actual) == 0.25
    with pytest.raises(ValueError, match='zip'):
        largest_difference(expected, actual[:1])
