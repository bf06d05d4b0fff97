import re

import numpy as np
import pytest
import torch
from PIL import Image

from mmattn.backbones import SMT, BOATSwin, PerspectiveEncoder
from mmattn.visualization.attention import (
    CallRecorder,
    image_for_backbone,
    select_layers,
    write_page,
)


def draw(model, folder, size=(64, 96), **chosen):
    rng = np.random.default_rng(0)
    image = image_for_backbone(rng.integers(0, 255, (*size, 3), np.uint8))
    model.eval()
    layers = select_layers(model, **chosen)
    with CallRecorder(model, layers) as calls, torch.no_grad():
        model(image.inputs)
    facts = dict(model='<any>')
    pixels = image.pixels_at()
    return write_page(folder, image, pixels, calls, facts)


def colors(path):
    with Image.open(path) as picture:
        assert picture.format == 'PNG'
        return np.asarray(picture.convert('RGB')).astype(int)


def test_the_page_shows_every_picture_from_its_own_folder(tmp_path):
    pictures = draw(BOATSwin('nano'), tmp_path / 'new' / 'x', stages=[0, 1])
    assert [path.name for path in pictures] == [
        'stages.0.blocks.0.attn.attention.png',
        'stages.0.blocks.1.attn.attention.png',
        'stages.0.blocks.1.feature_attn.clusters.png',
        'stages.0.blocks.1.feature_attn.attention.png',
        'stages.1.blocks.0.attn.attention.png',
        'stages.1.blocks.1.attn.attention.png',
        # 8 x 12 tokens are one cluster.
        'stages.1.blocks.1.feature_attn.attention.png',
    ]
    page = (tmp_path / 'new' / 'x' / 'index.html').read_text()
    shown = re.findall(r'src="([^"]+)"', page)
    assert shown == [path.name for path in pictures]
    shown = re.findall(r'alt="([^"]+)"', page)
    assert shown[2] == 'Clusters of stages.0.blocks.1.feature_attn'
    # Nothing from elsewhere: it opens without a network, and can be moved.
    assert '//' not in page and '&lt;any&gt;' in page
    targets = re.findall(r'href="#([^"]+)"', page)
    assert targets == re.findall(r'<h2 id="([^"]+)"', page)
    for path in pictures:
        assert colors(path).std() > 10
        assert path.stat().st_size < 150_000


def test_modulators_and_sequences(tmp_path):
    pictures = draw(SMT('nano'), tmp_path, stages=[0], blocks=[0])
    assert [p.name for p in pictures] == [
        'stages.0.blocks.0.attn.modulator.png'
    ]
    # The transformer over all levels takes a sequence, which is not drawn.
    model = PerspectiveEncoder('nano')
    assert any('integrator' in name for name in select_layers(model))
    names = [path.name for path in draw(model, tmp_path)]
    assert len(names) == 3
    assert not any('integrator' in name for name in names)


@pytest.mark.parametrize('size', [(32, 200), (75, 33)])
def test_pictures_of_other_shapes(size, tmp_path):
    for path in draw(BOATSwin('nano'), tmp_path, size, stages=[0], blocks=[0]):
        assert colors(path).std() > 10
