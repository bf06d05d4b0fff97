"""Publish a model and load it by name."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmattn import codebase_hooks
from mmattn.apis import seg_inferencer
from mmattn.checkpoints.loading import read_whole
from mmattn.checkpoints.metafiles import add_entry
from mmattn.cli.run_config import checkpoint_file
from mmattn.config import read_config
from mmattn.errors import UsageError
from mmattn.zoo import SCHEME, find_model

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'publish_model.py'
NAME = 'my-boat_digits'
CONFIG = 'boat-swin-nano_1xb32-25e_digits'


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('publish_model', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """A classifier as a Runner saves it, with random weights."""
    cfg = Config.fromfile(find_model(CONFIG).config)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        state = MODELS.build(cfg.model).state_dict()
    path = tmp_path_factory.mktemp('trained') / 'epoch_1.pth'
    meta = dict(dataset_meta=dict(classes=tuple('abcdefghij')), seed=3)
    torch.save(dict(state_dict=state, meta=meta, optimizer={}), path)
    return path


@pytest.fixture
def publish(tool, checkpoint, few_digits, tmp_path, monkeypatch):
    """Publish into a new zoo and return its folder."""
    zoo = tmp_path / 'zoo'
    monkeypatch.setenv('MMATTN_ZOO', str(zoo))
    monkeypatch.chdir(few_digits.parents[1])

    def run(*more, name=NAME, weights=checkpoint):
        words = [TOOL, weights, '--config', CONFIG, '--name', name, *more]
        monkeypatch.setattr(sys, 'argv', [str(word) for word in words])
        tool.main()
        return zoo

    return run


@pytest.fixture
def unmeasured(tool, monkeypatch):
    """Skip the tests in separate processes."""
    monkeypatch.setattr(tool, 'measure', lambda *args: {'accuracy/top1': 12.5})


def test_a_published_model_is_loaded_by_name(
    publish, checkpoint, capsys, monkeypatch
):
    zoo = publish()
    out = capsys.readouterr().out
    assert 'accuracy/top1 = ' in out
    assert f'published    {NAME} in {zoo / NAME}' in out
    (weights,) = (zoo / NAME).glob('*.pth')
    assert {path.name for path in zoo.iterdir()} == {
        'metafile.yml',
        'model-index.yml',
        NAME,
    }
    from mmpretrain.apis import model as hub

    monkeypatch.setattr(hub.ModelHub, '_models_dict', {})
    codebase_hooks.register_classifiers(hub)
    model = hub.get_model(NAME, pretrained=True)
    assert model._dataset_meta == dict(classes=tuple('abcdefghij'))
    state = torch.load(checkpoint)['state_dict']
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    # Change one byte of the weights.
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ValueError, match='mismatch'):
        hub.get_model(NAME, pretrained=True)
    for path in (f'mmattn://{NAME}', str(weights)):
        with pytest.raises(UsageError, match='mismatch'):
            checkpoint_file(path)


def append_code(folder):
    (config,) = (folder / NAME).glob('*.py')
    with config.open('a') as file:
        file.write('raise SystemExit\n')


def change_digest(folder):
    """Of the config, in the metafile."""
    metafile = folder / 'metafile.yml'
    text = re.sub(r'[0-9a-f]{8}\.py', '01234567.py', metafile.read_text())
    metafile.write_text(text)


@pytest.mark.parametrize('alter', [append_code, change_digest])
def test_an_altered_config_is_not_read(
    publish, unmeasured, monkeypatch, alter
):
    from mmpretrain.apis import model as hub

    zoo = publish()
    assert read_config(NAME, None, ('model',), 'a test').model
    alter(zoo)
    for read in (
        lambda: find_model(NAME),
        lambda: read_config(NAME, None, ('model',), 'a test'),
        lambda: seg_inferencer(NAME),
    ):
        with pytest.raises((UsageError, ValueError), match='mismatch'):
            read()
    monkeypatch.setattr(hub.ModelHub, '_models_dict', {})
    with pytest.warns(UserWarning, match='mismatch'):
        codebase_hooks.register_classifiers(hub)
    with pytest.raises(ValueError, match='Failed to find'):
        hub.get_model(NAME)


def test_an_interrupted_replacement_keeps_the_model(
    publish, tool, unmeasured, checkpoint, tmp_path, monkeypatch
):
    zoo = publish()
    before = find_model(NAME), read_whole(SCHEME + NAME)['meta']
    other = torch.load(checkpoint)
    other['state_dict']['head.fc.bias'] += 1
    torch.save(other, tmp_path / 'other.pth')

    def fail(folder, entry):
        if folder == zoo:
            raise KeyboardInterrupt
        add_entry(folder, entry)

    with monkeypatch.context() as patch:
        patch.setattr(tool, 'add_entry', fail)
        with pytest.raises(KeyboardInterrupt):
            publish('--force', weights=tmp_path / 'other.pth')
    assert (find_model(NAME), read_whole(SCHEME + NAME)['meta']) == before
    publish('--force', weights=tmp_path / 'other.pth')
    assert find_model(NAME).weights != before[0].weights
    assert len(list((zoo / NAME).iterdir())) == 4  # the old files are gone


def test_nothing_is_replaced_without_force(publish, unmeasured):
    zoo = publish()
    (first,) = (zoo / NAME).glob('*.pth')
    with pytest.raises(UsageError, match='--force'):
        publish()
    (zoo / NAME / 'README.md').write_text('of before')
    publish('--force')
    assert '# my-boat' in (zoo / NAME / 'README.md').read_text()
    (again,) = (zoo / NAME).glob('*.pth')
    assert first.name == again.name  # the same weights, the same name
    publish(name='another')
    text = (zoo / 'metafile.yml').read_text()
    assert [text.count(f'Name: {name}\n') for name in (NAME, 'another')] == [
        1,
        1,
    ]


def test_force_replaces_only_models(publish, tmp_path):
    training = tmp_path / 'zoo' / NAME / 'epoch_25.pth'
    training.parent.mkdir(parents=True)
    training.write_bytes(b'of hours')
    with pytest.raises(UsageError, match='not a model'):
        publish('--force')
    assert training.read_bytes() == b'of hours'


def test_metrics_that_are_not_reproduced(publish, unmeasured, tmp_path):
    metrics = tmp_path / 'metrics.json'
    metrics.write_text(json.dumps({'accuracy/top1': 13.0, 'time': 0.1}))
    with pytest.raises(UsageError, match='top1 = 12.5 instead of 13.0'):
        publish('--metrics', metrics)
    assert list((tmp_path / 'zoo').iterdir()) == []


@pytest.mark.parametrize(
    'more, message',
    [
        (['--ema'], 'EMA'),
        (['--metrics', 'gone.json'], 'gone.json'),
        (['--name', 'resnet50_8xb32_in1k'], 'already used'),
        (['--config', 'nope.py'], 'nope.py'),
    ],
)
def test_usage_errors(publish, more, message):
    with pytest.raises(UsageError, match=message):
        publish(*more)


@pytest.mark.parametrize(
    'config, message',
    [
        (
            'smt-nano_1xb32-25e_digits',
            'epoch_1.pth',
        ),
        ('swin-nano_1xb32-25e_digits', 'epoch_1.pth'),
    ],
)
def test_weights_of_another_model_are_rejected_at_once(
    publish, tool, tmp_path, monkeypatch, config, message
):
    monkeypatch.setattr(tool, 'publish', None)  # must not be reached
    with pytest.raises(UsageError, match=message):
        publish('--config', config)
    assert not (tmp_path / 'zoo').exists()


def test_a_model_without_a_backbone(publish, tmp_path):
    config = tmp_path / 'inside.py'
    config.write_text(
        f"_base_ = 'mmattn::boat_swin/{CONFIG}.py'\n"
        "model = dict(_delete_=True, type='SemiBaseDetector')\n"
    )
    with pytest.raises(UsageError, match='SemiBaseDetector'):
        publish('--config', config)


def test_classes_of_a_config_get_their_registered_names(tool):
    from mmdet.models.losses import L1Loss
    from mmengine.optim import OptimWrapper

    from mmattn.backbones import SMT

    config = dict(
        losses=[dict(type=L1Loss), dict(type='mmdet.FocalLoss')],
        backbone=dict(type=SMT),
        wrapper=dict(type=OptimWrapper, optimizer=dict(type=torch.optim.SGD)),
    )
    tool.name_classes(config, 'mmdet')
    assert config == dict(
        losses=[dict(type='L1Loss'), dict(type='mmdet.FocalLoss')],
        backbone=dict(type='mmattn.SMT'),
        wrapper=dict(
            type='OptimWrapper', optimizer=dict(type=torch.optim.SGD)
        ),
    )


def test_metrics_are_compared_one_by_one(tool):
    tool.compare(dict(a=0.5, b=float('nan')), dict(a=0.50001, b=float('nan')))
    with pytest.raises(UsageError, match='b = None instead of 2'):
        tool.compare(dict(a=1.0, b=2.0), dict(a=1.0))
    with pytest.raises(UsageError, match='a = 1.001 instead of 1.0'):
        tool.compare(dict(a=1.0), dict(a=1.001))
