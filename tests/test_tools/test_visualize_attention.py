import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmattn.backbones import SMT
from mmattn.cli.usage import run_command

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'configs'
CLASSIFIER = CONFIGS / 'boat_swin' / 'boat-swin-nano_1xb32-25e_digits.py'
SEGMENTOR = CONFIGS / 'cswin' / 'upernet_cswin-nano_1xb8-8e_digits.py'
DETECTOR = CONFIGS / 'smt' / 'mask-rcnn_smt-nano_fpn_1xb8-8e_digits.py'


@pytest.fixture(scope='module')
def tool():
    """The tool as a module: starting a process takes seconds."""
    path = ROOT / 'tools' / 'visualize_attention.py'
    spec = importlib.util.spec_from_file_location('visualize_attention', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(tool, monkeypatch, tmp_path, capsys):
    """Run the tool in a temporary folder and return its output.

    It has to warn if, and only if, the weights are random.
    """
    monkeypatch.chdir(tmp_path)

    def call(*words, is_random=True):
        argv = ['visualize_attention.py', *map(str, words)]
        monkeypatch.setattr(sys, 'argv', argv)
        run_command(tool.main)
        out, err = capsys.readouterr()
        assert ('random weights' in err) == is_random
        return out

    return call


@pytest.fixture
def image(tmp_path):
    path = tmp_path / 'grey.png'
    noise = np.random.default_rng(0).integers(0, 255, (50, 70), np.uint8)
    Image.fromarray(noise).save(path)
    return path


def error_of(run, capsys, *words):
    with pytest.raises(SystemExit) as ended:
        run(*words)
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    'config, names',
    [
        (
            CLASSIFIER,
            ['1.blocks.1.attn.attention', '1.blocks.1.feature_attn.attention'],
        ),
        (SEGMENTOR, ['1.blocks.1.attn.attention']),
        (DETECTOR, ['1.blocks.1.attn.modulator']),
    ],
    ids=['mmpretrain', 'mmseg', 'mmdet'],
)
def test_configs_of_three_codebases(config, names, run, image, tmp_path):
    out = run(image, config, '--stages', 1, '--blocks', -1)
    folder = tmp_path / 'work_dirs' / 'attention' / 'grey'
    names = [f'backbone.stages.{name}.png' for name in names]
    assert sorted(p.name for p in folder.glob('*.png')) == sorted(names)
    page = (folder / 'index.html').read_text()
    assert all(f'src="{name}"' in page for name in names)
    assert str(config) in page
    assert f'{len(names)} pictures; open ' in out.splitlines()[-1]


def test_a_backbone_with_weights_and_pixels(run, image, tmp_path):
    torch.manual_seed(1)
    torch.save(SMT('nano').state_dict(), tmp_path / 'smt.pth')
    args = (image, '--backbone', 'smt-nano', '--stages', 2, '--out-dir')
    pictures = []
    for folder, more in (
        ('a', ['--checkpoint', tmp_path / 'smt.pth']),
        ('b', ['--checkpoint', tmp_path / 'smt.pth', '--max-heads', 1]),
        ('c', []),
    ):
        pixels = ('--pixels', '0,0', '49,69', '3,4')
        run(*args, folder, *pixels, *more, is_random=not more)
        page = (tmp_path / folder / 'index.html').read_text()
        assert '1: (0, 0), 2: (49, 69), 3: (3, 4)' in page
        name = 'stages.2.blocks.1.attn.attention.png'
        with Image.open(tmp_path / folder / name) as picture:
            pictures.append(picture.convert('RGB'))
    loaded, one_head, random = pictures
    assert one_head.width < loaded.width == random.width
    assert np.asarray(loaded).tolist() != np.asarray(random).tolist()


@pytest.mark.parametrize(
    'words, message',
    [
        (
            ['--backbone', 'boat-swin-huge'],
            'boat-swin-nano',
        ),
        ([], 'either a config or --backbone'),
        ([CLASSIFIER, '--backbone', 'x'], 'either a config or --backbone'),
        (['--backbone', 'smt-nano', '--max-heads', 0], 'at least 1'),
        (
            ['--backbone', 'smt-nano', '--pixels', '3'],
            'ROW,COLUMN',
        ),
        (
            ['--backbone', 'smt-nano', '--pixels', '3,70'],
            r'\(3, 70\) is outside',
        ),
        (
            ['--backbone', 'smt-nano', '--stages', 9],
            r'stages \[9\]',
        ),
        (
            ['--backbone', 'smt-nano', '--checkpoint', 'none.pth'],
            'none.pth',
        ),
        (
            ['--backbone', 'smt-nano', '--out-dir', 'grey.png'],
            '--out-dir grey.png',
        ),
        (['missing.py'], 'missing.py'),
    ],
)
def test_mistakes(words, message, run, image, capsys):
    error = error_of(run, capsys, image, *words)
    assert re.search(message, error), error
    assert 'Traceback' not in error


def test_an_image_smaller_than_a_patch(run, tmp_path, capsys):
    Image.new('RGB', (1, 1)).save(tmp_path / 'one.png')
    assert '4 x 4 pixels' in error_of(
        run, capsys, 'one.png', '--backbone', 'smt-nano'
    )


def test_files_that_are_not_images(run, tmp_path, capsys):
    (tmp_path / 'text.jpg').write_text('no picture')
    args = ('--backbone', 'smt-nano')
    assert 'cannot read image text.jpg' in error_of(
        run, capsys, 'text.jpg', *args
    )
    assert 'none.jpg' in error_of(run, capsys, 'none.jpg', *args)


def test_a_config_without_attention(run, image, tmp_path, capsys):
    config = tmp_path / 'resnet.py'
    config.write_text(
        "default_scope = 'mmpretrain'\n"
        "model = dict(type='ImageClassifier', "
        "backbone=dict(type='ResNet', depth=18))\n"
        "steps = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]\n"
        'test_dataloader = dict(dataset=dict(pipeline=steps))\n'
    )
    error = error_of(run, capsys, image, config)
    assert 'ImageClassifier' in error
