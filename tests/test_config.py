"""Configs that cannot be read are reported in one message."""

import pytest

from mmattn import config
from mmattn.errors import UsageError


def read(path, options=None, needs=('model',)):
    return config.read_config(str(path), options, needs, 'training')


@pytest.fixture
def file(tmp_path):
    path = tmp_path / 'swin_8xb2-1x_coco.py'
    path.write_text("model = dict(type='X', depths=[1, 2])\n")
    return path


def test_reads_and_overrides(file):
    cfg = read(file, {'model.depths': [3, 2], 'model.init_cfg': None})
    assert cfg.model == dict(type='X', depths=[3, 2], init_cfg=None)


def test_missing_config(tmp_path):
    with pytest.raises(
        UsageError, match=r"expects a config file, got '.*nope\.py', which"
    ):
        read(tmp_path / 'nope.py')


def test_missing_config_with_a_near_name(tmp_path, file, monkeypatch):
    folder = tmp_path / 'configs' / 'swin'
    folder.mkdir(parents=True)
    (folder / file.name).write_text('')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UsageError,
        match=r'did you mean configs/swin/swin_8xb2-1x_coco\.py\?',
    ):
        read('configs/swin_8xb2_1x_coco.py')


@pytest.mark.parametrize(
    'text, what',
    [
        ('model = dict(', 'SyntaxError'),
        ("_base_ = './missing.py'", 'missing.py'),
        ('1 / 0', 'ZeroDivisionError'),
    ],
)
def test_config_that_does_not_evaluate(file, text, what):
    file.write_text(text)
    with pytest.raises(UsageError, match=f'cannot read the config .*{what}'):
        read(file)


@pytest.mark.parametrize('key', ['model.depths.7', 'model.depths.0'])
def test_override_that_does_not_fit(file, key):
    with pytest.raises(UsageError, match=f'--cfg-options {key} do not fit'):
        read(file, {key: 1})


def test_config_without_a_field(file):
    with pytest.raises(
        UsageError, match='got no test_evaluator, test_cfg in .*coco.py'
    ):
        read(file, needs=('model', 'test_evaluator', 'test_cfg'))


def test_config_of_an_absent_codebase(file, monkeypatch):
    file.write_text("model = dict(type='X')\ndefault_scope = 'mmseg'\n")
    monkeypatch.setattr(config.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(
        UsageError, match='config of mmseg .* `python -m mmattn` says how'
    ):
        read(file)
