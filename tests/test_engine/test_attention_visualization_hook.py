from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.visualization.vis_backend import BaseVisBackend
from PIL import Image
from torch import nn

from mmattn.cli.run_config import fill_loaders
from mmattn.engine import (
    AttentionVisualizationHook,
    attention_visualization_hook,
)

CONFIGS = Path(__file__).parents[2] / 'configs'
# Each batches images in its own way.
CLASSIFIER = 'boat_swin/boat-swin-nano_1xb32-25e_digits.py'
DETECTOR = 'boat_swin/mask-rcnn_boat-swin-nano_fpn_1xb8-8e_digits.py'
SEGMENTOR = 'smt/upernet_smt-nano_1xb8-8e_digits.py'
NAMES = {
    CLASSIFIER: ('attn.attention', 'feature_attn.attention'),
    DETECTOR: (
        'attn.attention',
        'feature_attn.attention',
        'feature_attn.clusters',
    ),
    SEGMENTOR: ('attn.modulator',),
}
NAMES = {
    config: [f'backbone.stages.0.blocks.1.{name}.png' for name in names]
    for config, names in NAMES.items()
}


class Backend(BaseVisBackend):
    """Keeps pictures in memory."""

    def __init__(self):
        self.images = {}

    def _init_env(self):
        raise NotImplementedError

    @property
    def experiment(self):
        return self

    def add_image(self, name, image, step=0, **kwargs):
        self.images[name] = image


@pytest.fixture
def build_runner(few_digits, tmp_path, monkeypatch):
    """A Runner of a config, with the hook, on images of 64 pixels."""

    def build(config, num_images=7, batch_size=3, **hook):
        monkeypatch.chdir(few_digits.parents[1])  # holds data/digit_scenes
        cfg = Config.fromfile(CONFIGS / config)
        fill_loaders(cfg)
        cfg.work_dir = str(tmp_path / f'{len(list(tmp_path.iterdir()))}')
        cfg.log_level = 'ERROR'
        cfg.experiment_name = cfg.work_dir.replace('/', '-')
        cfg.randomness = dict(seed=0)
        cfg.visualizer.name = cfg.experiment_name
        cfg.default_hooks.checkpoint = None  # keeps the best of a training
        for loader in (cfg.val_dataloader, cfg.test_dataloader):
            loader.batch_size = batch_size
            loader.dataset.indices = num_images
        hook['type'] = 'mmattn.AttentionVisualizationHook'
        cfg.custom_hooks = [hook]
        return Runner.from_cfg(cfg)

    return build


def pages(runner, step):
    """Folder of each image that was drawn, by the image's number."""
    folders = Path(runner.log_dir, 'attention', step).glob('*')
    return {int(folder.name.split('_')[0]): folder for folder in folders}


def colors(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert('RGB'))


@pytest.mark.parametrize('config', [CLASSIFIER, DETECTOR, SEGMENTOR])
def test_every_nth_image_is_drawn(config, build_runner):
    runner = build_runner(config, interval=5, stages=[0], blocks=[-1])
    backend = Backend()
    runner.visualizer._vis_backends['other'] = backend
    runner.val()
    drawn = pages(runner, 'val_0')
    assert sorted(drawn) == [0, 5]
    for folder in drawn.values():
        names = sorted(path.name for path in folder.glob('*.png'))
        assert names == NAMES[config]
        page = (folder / 'index.html').read_text()
        for name in names:
            assert f'src="{name}"' in page
            sent = backend.images[f'attention/{folder.name}/{name[:-4]}']
            np.testing.assert_array_equal(sent, colors(folder / name))
    assert len(backend.images) == 2 * len(NAMES[config])


def test_the_batch_size_does_not_change_the_pictures(build_runner):
    found = []
    for batch_size in (1, 3):
        runner = build_runner(
            SEGMENTOR, 3, batch_size, interval=1, stages=[0], blocks=[1]
        )
        runner.test()
        drawn = pages(runner, 'test')
        assert sorted(drawn) == [0, 1, 2]
        (name,) = NAMES[SEGMENTOR]
        found.append([colors(drawn[i] / name).astype(int) for i in range(3)])
    for alone, together in zip(*found):
        assert np.abs(alone - together).mean() < 0.5
    assert np.abs(found[0][0] - found[0][1]).mean() > 5


def test_only_the_main_process_draws(build_runner, monkeypatch):
    runner = build_runner(CLASSIFIER, 1, interval=1, stages=[0])
    monkeypatch.setattr(
        attention_visualization_hook, 'is_main_process', lambda: False
    )
    runner.val()
    assert pages(runner, 'val_0') == {}


def test_a_model_without_attention():
    runner = SimpleNamespace(model=nn.Linear(2, 2))
    with pytest.raises(ValueError, match='Linear'):
        AttentionVisualizationHook().before_run(runner)


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(interval=0), 'interval=0'),
        (dict(places=()), 'places'),
        (dict(places=[(0.5, 1.0)]), 'places'),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        AttentionVisualizationHook(**arguments)
