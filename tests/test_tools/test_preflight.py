"""What every tool imports before all else."""

import ast
import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmattn import stack

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
# They need no stack, or are no tools.
WITHOUT = {'make_digit_scenes', 'pictures', 'preflight'}
NAMES = sorted({path.stem for path in TOOLS.glob('*.py')} - WITHOUT)


@pytest.mark.parametrize('name', NAMES)
def test_every_tool_imports_it_first(name):
    tree = ast.parse((TOOLS / f'{name}.py').read_text())
    modules = []
    for node in tree.body:
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules.append(node.module)
    own = [
        module
        for module in modules
        if module.partition('.')[0] not in sys.stdlib_module_names
    ]
    assert own[0] == 'preflight'


def test_a_stack_that_does_not_fit_is_one_line(monkeypatch, capsys):
    monkeypatch.setitem(stack.MINIMUM_VERSIONS, 'mmengine', '99')
    monkeypatch.setattr(sys, 'argv', ['/somewhere/train.py'])
    monkeypatch.setattr(sys, 'path', list(sys.path))
    monkeypatch.delitem(sys.modules, 'preflight', raising=False)
    with pytest.raises(SystemExit) as ended:
        importlib.import_module('preflight')
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith('train.py: error: ') and 'mmengine>=99' in error


def test_a_clone_runs_from_its_own_source(tmp_path):
    """From any folder, without an installation or PYTHONPATH."""
    shutil.copytree(TOOLS, tmp_path / 'tools')
    package = tmp_path / 'mmattn'
    package.mkdir()
    (package / '__init__.py').touch()
    shutil.copy(stack.__file__, package)
    (package / 'checkpoints.py').write_text("raise SystemExit('the clone')\n")
    done = subprocess.run(
        [sys.executable, str(tmp_path / 'tools' / 'convert_checkpoint.py')],
        capture_output=True,
        text=True,
        cwd=tmp_path.parent,
        env={},
    )
    assert done.stderr == 'the clone\n'
