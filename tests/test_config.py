"""Read configs of old and new style; report those that cannot be read."""

import pytest
from mmengine.config import Config

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
    with pytest.raises(UsageError, match=r"got '.*nope\.py', which"):
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
        ('raise SystemExit(3)', 'SystemExit: 3'),
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
        UsageError, match='needs test_evaluator, test_cfg.*coco.py'
    ):
        read(file, needs=('model', 'test_evaluator', 'test_cfg'))


def test_config_of_an_absent_codebase(file, monkeypatch):
    file.write_text("model = dict(type='X')\ndefault_scope = 'mmseg'\n")
    monkeypatch.setattr(config.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(UsageError, match='mmseg'):
        read(file)


NEW_STYLE = """
from mmdet.models import MaskRCNN
from mmengine.model import BaseModule
from torch.nn import SyncBatchNorm

model = dict(type=MaskRCNN, neck=[dict(norm_cfg=dict(type=SyncBatchNorm))])
"""


def test_a_config_of_the_new_style(tmp_path):
    path = tmp_path / 'new.py'
    path.write_text(NEW_STYLE)
    cfg = read(path)
    assert config.codebase_of(cfg) == 'mmdet'
    assert config.type_name(cfg.model.type) == 'MaskRCNN'
    assert config.replace_sync_norms(cfg.model) == 1
    assert cfg.model.neck[0].norm_cfg.type == 'BN'


@pytest.mark.parametrize(
    'fields, expected',
    [
        (dict(default_scope='mmseg'), 'mmseg'),
        (dict(default_scope='mine'), None),
        (dict(model=dict(type='mmpretrain.ImageClassifier')), 'mmpretrain'),
        (dict(model=dict(type='FCOS')), None),
        (dict(), None),
    ],
)
def test_codebase_of_a_config(fields, expected):
    assert config.codebase_of(Config(fields)) == expected
