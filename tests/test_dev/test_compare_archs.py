"""tools/dev/compare_archs.py prints the table of docs/model_costs.md."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from mmattn.backbones import PerspectiveEncoder
from mmattn.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]


TOOL = ROOT / 'tools' / 'dev' / 'compare_archs.py'


@pytest.fixture(scope='module')
def table():
    try:
        generator = torch.Generator()
        torch.normal(0.0, 1.0, (1,), generator=generator, device='meta')
    except AssertionError:
        pytest.skip('torch draws no meta tensors with a generator before 2.2')
    spec = importlib.util.spec_from_file_location(TOOL.stem, TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr(sys, 'argv', [str(TOOL)])
        patch.setattr('builtins.print', lambda text: lines.append(text + '\n'))
        tool.main()
    return ''.join(lines)


def test_the_page_shows_the_table(table):
    assert f'\n\n{table}\n' in (ROOT / 'docs' / 'model_costs.md').read_text()


def test_every_tiny_arch_has_a_row(table):
    rows = [line.strip('| ').split(' | ') for line in table.splitlines()[2:]]
    want = {
        (name, arch)
        for name, cls in MODELS.module_dict.items()
        for arch in getattr(cls, 'arch_zoo', ())
        if arch.endswith('tiny')
    }
    assert {tuple(row[:2]) for row in rows} == {
        *want,
        (PerspectiveEncoder.__name__, 'base'),
    }
