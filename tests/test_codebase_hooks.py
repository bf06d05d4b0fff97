"""Names of mmattn in mmengine and mmpretrain, in any order of imports."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS, init_default_scope

from mmattn import codebase_hooks
from mmattn.zoo import list_models

ROOT = Path(__file__).parents[1]
USE = """
from mmengine.config import Config
from mmengine.hub import get_config
import mmpretrain

names = mmpretrain.list_models('*boat*')
print('>', *names)
name = 'mmattn::boat_swin/boat-swin-nano_1xb32-25e_digits.py'
print('>', get_config(name).model.backbone.type)
print('>', Config.fromfile('child.py').model.backbone.arch)
print('>', type(mmpretrain.get_model(names[1]).backbone).__name__)
"""


@pytest.mark.parametrize('first', ['mmattn', 'mmpretrain'])
def test_names_are_known_in_any_order_of_imports(first, tmp_path):
    (tmp_path / 'child.py').write_text(
        "_base_ = 'mmattn::smt/smt-nano_1xb32-25e_digits.py'\n"
        "model = dict(backbone=dict(arch='tiny'))\n"
    )
    done = subprocess.run(
        [sys.executable, '-c', f'import {first}\nimport mmattn\n{USE}'],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={'PYTHONPATH': str(ROOT), 'HOME': str(tmp_path), 'PATH': ''},
    )
    assert done.returncode == 0, done.stderr
    lines = [x for x in done.stdout.splitlines() if x.startswith('> ')]
    names, base, child, built = (line.removeprefix('> ') for line in lines)
    assert set(names.split()) == {
        name
        for name in list_models()
        if name.startswith(('boat-swin', 'boat-cswin'))
    }
    assert (base, child, built) == ('mmattn.BOATSwin', 'tiny', 'BOATCSWin')


@pytest.mark.parametrize(
    'name',
    [
        'smt/smt-nano_1xb32-25e_digits.py',
        'swin/mask-rcnn_swin-nano_fpn_1xb8-8e_digits.py',
        'attention_pyramid/upernet_enltb-nano_1xb8-8e_digits.py',
    ],
)
def test_models_of_configs_are_built_by_their_codebase(name, tmp_path):
    (tmp_path / 'child.py').write_text(f"_base_ = 'mmattn::{name}'\n")
    child = Config.fromfile(tmp_path / 'child.py')
    assert child.model == Config.fromfile(ROOT / 'configs' / name).model
    init_default_scope(child.default_scope)
    assert isinstance(MODELS.build(child.model), BaseModel)


def test_importing_mmattn_imports_only_the_standard_library():
    code = (
        'import sys; before = set(sys.modules); import mmattn\n'
        'tops = {name.split(".")[0] for name in set(sys.modules) - before}\n'
        'print(sorted(tops - set(sys.stdlib_module_names)))'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout == "['mmattn']\n", done.stderr


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module that is not imported yet, and the calls made with it."""
    (tmp_path / 'late_module.py').write_text('import os\nVALUE = 3\n')
    monkeypatch.syspath_prepend(tmp_path)
    calls = []
    finder = codebase_hooks.AfterImport(
        {'late_module': lambda module: calls.append(module.VALUE)}
    )
    monkeypatch.setattr(sys, 'meta_path', sys.meta_path.copy())
    yield finder, calls, tmp_path / 'late_module.py'
    sys.modules.pop('late_module', None)


def test_a_function_is_called_once_after_the_import(module):
    finder, calls, path = module
    finder.install()
    late = importlib.import_module('late_module')
    assert calls == [3]
    assert late.__spec__.origin == str(path)
    assert late.__loader__.get_source('late_module').endswith('VALUE = 3\n')
    importlib.reload(late)
    assert calls == [3]


def test_a_function_is_called_at_once_if_the_module_is_imported(module):
    finder, calls, _ = module
    importlib.import_module('late_module')
    finder.install()
    assert calls == [3]


def test_a_missing_module(module):
    finder, calls, path = module
    path.unlink()
    importlib.invalidate_caches()
    finder.install()
    with pytest.raises(ModuleNotFoundError, match='late_module'):
        importlib.import_module('late_module')
    assert calls == []


@pytest.mark.parametrize(
    'index', ['Import: [gone.yml]', 'Import: [', 'Import: [model-index.yml]']
)
def test_a_broken_zoo_is_skipped_with_a_warning(index, tmp_path, monkeypatch):
    from mmpretrain.apis import model

    (tmp_path / 'model-index.yml').write_text(index)
    monkeypatch.setenv('MMATTN_ZOO', str(tmp_path))
    monkeypatch.setattr(model.ModelHub, '_models_dict', {})
    with pytest.warns(UserWarning, match=str(tmp_path)):
        codebase_hooks.register_classifiers(model)
    assert 'smt-tiny_8xb128-300e_in1k' in model.ModelHub._models_dict
