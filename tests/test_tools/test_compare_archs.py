"""tools/compare_archs.py prints what the page about costs says."""

import subprocess
import sys
from pathlib import Path

import pytest

from mmattn.backbones import PerspectiveEncoder
from mmattn.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def table():
    done = subprocess.run(
        [sys.executable, ROOT / 'tools' / 'compare_archs.py'],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_page_says_what_was_counted(table):
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
