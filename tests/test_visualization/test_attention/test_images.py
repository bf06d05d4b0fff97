import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from PIL import Image

from mmattn.cli.single_image import build_pipeline
from mmattn.visualization.attention import (
    NetworkImage,
    image_for_backbone,
    image_for_model,
    inputs_to_picture,
    read_picture,
)
from mmattn.visualization.attention.images import TokenGrid, fit_tokens

CODEBASES = dict(
    mmpretrain=(
        [
            dict(
                type='ResizeEdge',
                scale=96,
                edge='short',
                backend='pillow',
                interpolation='bicubic',
            ),
            dict(type='CenterCrop', crop_size=64),
            dict(type='PackInputs'),
        ],
        dict(type='ClsDataPreprocessor', mean=[90, 80, 70], std=[5, 5, 5]),
        (64, 64),
    ),
    mmdet=(
        [
            dict(type='Resize', scale=(200, 90), keep_ratio=True),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='PackDetInputs'),
        ],
        dict(type='DetDataPreprocessor', bgr_to_rgb=True, pad_size_divisor=32),
        (96, 160),
    ),
    mmseg=(
        [
            dict(type='Resize', scale=(100, 100), keep_ratio=True),
            dict(type='LoadAnnotations'),
            dict(type='PackSegInputs'),
        ],
        dict(type='SegDataPreProcessor', bgr_to_rgb=True),
        (67, 100),
    ),
)


@pytest.fixture
def file(tmp_path):
    """60 x 90 pixels, dark but for a red square around (33, 48)."""
    picture = np.zeros((60, 90, 3), np.uint8)
    picture[32:35, 47:50, 0] = 250
    path = tmp_path / 'dark.png'
    Image.fromarray(picture).save(path)
    return path


@pytest.mark.parametrize('codebase', CODEBASES)
def test_a_config_prepares_the_image(codebase, file):
    steps, preprocessor, size = CODEBASES[codebase]
    pipeline = [dict(type='LoadImageFromFile'), *steps]
    dataset = dict(dataset=dict(pipeline=pipeline))
    cfg = Config(
        dict(default_scope=codebase, test_dataloader=dict(dataset=dataset))
    )
    model = torch.nn.Module()
    with DefaultScope.overwrite_default_scope(codebase):
        model.data_preprocessor = MODELS.build(preprocessor)
    image = image_for_model(model, build_pipeline(cfg), file)
    assert tuple(image.inputs.shape) == (1, 3, *size)
    assert image.picture.shape == (*size, 3) and image.file_size == (60, 90)
    row, column = image.locate(33, 48)
    red = image.picture[..., 0].astype(int) - image.picture[..., 1]
    # Enlarged and smoothed, but it is still brightest around the middle.
    assert red[row, column] > 0.9 * red.max() > 100
    assert (red > 50).sum() < 0.02 * red.size
    assert all(row < side for row, side in zip(image.locate(33, 48), size))


def test_a_pixel_that_is_cropped_or_outside(file):
    image = NetworkImage(
        np.zeros((64, 64, 3), np.uint8),
        content_size=(64, 64),
        file_size=(60, 90),
        scale=(1.6, 1.6),
        offset=(16, 40),
    )
    assert image.locate(30, 45) == (32, 32)
    with pytest.raises(ValueError, match=r'crops pixel \(2, 45\)'):
        image.locate(2, 45)
    with pytest.raises(ValueError, match=r'\(60, 0\) is outside'):
        image.locate(60, 0)


@pytest.mark.parametrize('mode', ['L', 'RGBA', 'P', '1', 'CMYK'])
def test_pictures_of_any_mode(mode, tmp_path):
    path = tmp_path / ('x.tif' if mode == 'CMYK' else 'x.png')
    Image.new('RGB', (7, 5), 'white').convert(mode).save(path)
    picture = read_picture(path)
    assert picture.shape == (5, 7, 3) and picture.dtype == np.uint8
    assert (picture == 255).all()


def test_files_that_are_not_images(tmp_path, file):
    with pytest.raises(ValueError, match='nothing.png'):
        read_picture('nothing.png')
    text = tmp_path / 'text.png'
    text.write_text('no picture')
    with pytest.raises(ValueError, match='cannot read .*text.png'):
        read_picture(text)
    text.write_bytes(file.read_bytes()[:90])
    with pytest.raises(ValueError, match='cannot read .*text.png'):
        read_picture(text)


def test_a_photograph_is_shrunk_for_a_bare_backbone():
    image = image_for_backbone(np.full((900, 600, 3), 124, np.uint8))
    assert image.picture.shape == (512, 341, 3) == (*image.content_size, 3)
    assert tuple(image.inputs.shape) == (1, 3, 512, 341)
    red = image.inputs[0, 0]
    torch.testing.assert_close(red, torch.full_like(red, 0.325 / 58.395))
    assert image.locate(899, 0) == (511, 0)
    small = image_for_backbone(np.zeros((40, 30, 3), np.uint8))
    assert small.content_size == (40, 30) and small.scale == (1, 1)


def test_inputs_are_shown_in_their_colors():
    blue_red = torch.zeros(3, 4, 5)
    blue_red[0] = 200
    picture = inputs_to_picture(blue_red.byte(), (6, 8))
    assert picture.shape == (6, 8, 3)
    assert (picture[:4, :5] == (0, 0, 200)).all()
    assert (picture[4:] == 128).all() and (picture[:, 5:] == 128).all()
    assert inputs_to_picture(blue_red.byte(), (2, 2)).shape == (2, 2, 3)
    grey = inputs_to_picture(torch.full((1, 4, 5), 9).byte(), (4, 5))
    assert (grey == 9).all()
    normalized = inputs_to_picture(
        torch.linspace(-2, 2, 60).view(3, 4, 5), (4, 5)
    )
    assert normalized.min() == 0 and normalized.max() == 255


@pytest.mark.parametrize(
    'size, picture, cell',
    [
        ((32, 32), (128, 128), (4, 4)),
        # Rounded up on the way down: 333 / 4, then twice a half.
        ((84, 125), (333, 500), (4, 4)),
        ((11, 16), (333, 500), (32, 32)),
        ((2, 32), (33, 1000), (32, 32)),
        # Rounded down, by a stride that is no power of two.
        ((33, 50), (100, 150), (100 / 33, 3)),
    ],
)
def test_a_map_of_the_picture(size, picture, cell):
    assert fit_tokens(size, picture) == TokenGrid(size, cell)


@pytest.mark.parametrize('size', [(1, 341), (7, 49)])
def test_a_sequence_is_no_map_of_the_picture(size):
    assert fit_tokens(size, (128, 128)) is None


def test_the_token_of_a_pixel():
    grid = fit_tokens((3, 4), (40, 60))
    assert grid.cell == (16, 16)
    assert grid.token_at(15, 16) == (0, 1)
    assert grid.token_at(39, 59) == (2, 3)


def test_tokens_of_a_map_that_is_rounded_down_stay_on_it():
    assert TokenGrid((2, 2), (16, 16)).token_at(47, 5) == (1, 0)
