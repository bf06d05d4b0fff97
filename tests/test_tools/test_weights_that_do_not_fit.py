"""Tools reject a checkpoint that does not fit the model, and say why."""

from functools import partial

import pytest
import torch
from forked import run_forked, run_tool
from PIL import Image

from mmattn.backbones import SMT, BOATSwin

CONFIG = 'boat-swin-nano_1xb32-25e_digits'
SHORT = (
    '--cfg-options',
    'train_cfg.max_epochs=1',
    'train_dataloader.batch_size=8',
    'train_dataloader.dataset.indices=8',
    'train_dataloader.num_workers=0',
    'val_dataloader.num_workers=0',
    'test_dataloader.num_workers=0',
)
TOOLS = {
    'test': ('test', CONFIG, 'a.pth', *SHORT),
    'train': ('train', CONFIG, '--load-from', 'a.pth', *SHORT),
    'init_cfg': (
        *('train', CONFIG, *SHORT),
        *('model.init_cfg.type=Pretrained', 'model.init_cfg.checkpoint=a.pth'),
    ),
    'visualize': (
        *('visualize_attention', 'image.png', CONFIG),
        *('--checkpoint', 'a.pth', '--stages', '0'),
    ),
    'visualize_backbone': (
        *('visualize_attention', 'image.png', '--stages', '0'),
        *('--backbone', 'boat-swin-nano', '--checkpoint', 'a.pth'),
    ),
}


def whole(backbone):
    state = {f'backbone.{k}': v for k, v in backbone.state_dict().items()}
    width = state['backbone.norm3.weight'].numel()
    state['head.fc.weight'] = torch.zeros(10, width)
    return state | {'head.fc.bias': torch.zeros(10)}


def with_another_block(state):
    block = 'backbone.stages.0.blocks.'
    more = {
        key.replace(f'{block}0.', f'{block}2.'): value
        for key, value in state.items()
    }
    return more | state


def changed(change):
    def make():
        state = whole(BOATSwin('nano'))
        key = 'backbone.stages.0.blocks.0.norm1.weight'
        return state | {key: change(state[key])}

    return make


# The weights and what the tools say, those that load whole models first.
FLAWS = {
    'arch': (lambda: whole(BOATSwin('tiny')), "BOATSwin arch='tiny'"),
    'family': (lambda: whole(SMT('nano')), 'SMT'),
    'blocks': (
        lambda: with_another_block(whole(BOATSwin('nano'))),
        'stages.0.blocks.2.',
    ),
    'shape': (changed(lambda x: x[:-1]), 'stages.0.blocks.0.norm1.weight'),
    'integers': (changed(torch.Tensor.long), 'stages.0.blocks.0.norm1.weight'),
    'nan': (changed(lambda x: x / 0), 'allow-nonfinite'),
}


@pytest.fixture
def run(few_digits, tmp_path):
    """Run a tool on weights in a folder with data and an image."""
    (tmp_path / 'data').symlink_to(few_digits.parent)
    Image.new('RGB', (64, 64)).save(tmp_path / 'image.png')

    def call(tool, state, *more):
        meta = dict(experiment_name='some-config_20260131_120000')
        torch.save(dict(state_dict=state, meta=meta), tmp_path / 'a.pth')
        name, *words = TOOLS[tool]
        call = partial(run_tool, name, *more, *words)
        status, text = run_forked(call, tmp_path)
        assert 'Traceback' not in text
        return status, text

    return call


def cases():
    """All tools and flaws; those that build a Runner take seconds."""
    for tool in ('test', 'train', 'visualize', 'visualize_backbone'):
        for flaw in FLAWS:
            is_slow = tool in ('test', 'train') and flaw not in ('arch', 'nan')
            marks = pytest.mark.slow if is_slow else ()
            yield pytest.param(tool, flaw, marks=marks)


@pytest.mark.parametrize('tool, flaw', cases())
def test_weights_that_do_not_fit(run, tool, flaw):
    make, message = FLAWS[flaw]
    status, text = run(tool, make())
    assert status == 2, text[-3000:]
    (line,) = (x for x in text.splitlines() if ': error: ' in x)
    assert message in line
    if tool != 'visualize_backbone' and flaw != 'nan':
        assert 'tensors fit' in line
        assert "trained with 'some-config'" in line or tool == 'visualize'


@pytest.mark.parametrize('tool', ['test', 'train', 'visualize'])
def test_partial_loading(run, tool):
    state = FLAWS['shape'][0]()
    status, text = run(tool, state, '--partial')
    assert status == 0, text[-3000:]
    if tool == 'test':
        state['head.fc.bias'] = torch.zeros(7)
        status, text = run(tool, state, '--partial')
        assert status == 2 and 'head.fc.bias' in text


def test_names_are_converted(run):
    """A bare backbone starts the training of a whole model."""
    status, text = run('train', BOATSwin('nano').state_dict())
    assert status == 0, text[-3000:]
    assert 'converted a checkpoint of format mmattn' in text


def test_an_init_cfg_of_the_whole_model(run):
    state = whole(BOATSwin('nano'))
    others = {f'net.{name}': value for name, value in state.items()}
    status, text = run('init_cfg', others)
    assert status == 2, text[-3000:]
    (line,) = (x for x in text.splitlines() if ': error: ' in x)
    own = len(state) - 6  # a classifier has the last of the output norms
    assert f'a.pth does not fit ImageClassifier: 0 of {own} ' in line
    assert f'{own} are missing' in line and f'{len(state)} are unexp' in line
    status, text = run('init_cfg', state)
    assert status == 0, text[-3000:]
