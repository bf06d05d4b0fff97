"""Every class of the registry, whatever its kind: any size, any batch.

The tests of each kind ask more of it; this one leaves none out.
"""

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import DefaultScope

from mmattn.registry import MODELS

MODELS.import_from_location()
NAMES = sorted(MODELS.module_dict)
C = 16
CHANNELS = [8, 16, 24, 32, 40]


def apply_attention(cls):
    layer = cls(embed_dims=C, num_heads=4)
    return layer, lambda images: [layer(wide(images).permute(0, 2, 3, 1))]


def apply_backbone(cls):
    arch = next(a for a in cls.arch_zoo if a.endswith('nano'))
    model = cls(arch)
    return model, model


def apply_plugin(cls):
    kwargs = {}
    if cls.__name__ == 'AttentionPlugin':
        attention = dict(type='mmattn.FeatureSpaceAttention', num_heads=4)
        kwargs = dict(attention=attention, init_scale=1.0)
    plugin = cls(in_channels=C, **kwargs)
    return plugin, lambda images: [plugin(wide(images))]


def apply_neck(cls):
    neck = cls(in_channels=CHANNELS[:4], out_channels=C, num_outs=5)
    return neck, lambda images: neck(levels(images, 4)[:4])


def apply_head(cls):
    with DefaultScope.overwrite_default_scope('mmseg'):
        head = cls(in_channels=CHANNELS[1:], channels=C, num_classes=3)
    return head, lambda images: [head(levels(images, 1))]


APPLY = dict(
    attentions=apply_attention,
    backbones=apply_backbone,
    plugins=apply_plugin,
    necks=apply_neck,
    heads=apply_head,
)


def wide(images):
    """A map of ``C`` channels and a third of the size, image by image."""
    maps = F.avg_pool2d(images, 3).repeat(1, C, 1, 1)[:, :C]
    return maps * torch.linspace(-2, 2, C, dtype=images.dtype).view(-1, 1, 1)


def levels(images, stride):
    """Maps as a backbone gives them, of each image by itself."""
    maps = []
    for i, channels in enumerate(CHANNELS):
        size = [-(-side // (stride * 2**i)) for side in images.shape[2:]]
        pooled = F.adaptive_avg_pool2d(images, size)
        maps.append(pooled.repeat(1, channels, 1, 1)[:, :channels])
    return maps


@pytest.mark.parametrize('size', [(32, 32), (37, 101), (64, 45)])
@pytest.mark.parametrize('name', NAMES)
def test_an_image_gives_the_same_alone_and_in_any_batch(name, size):
    cls = MODELS.get(name)
    torch.manual_seed(0)
    model, call = APPLY[cls.__module__.split('.')[1]](cls)
    model.double().eval()
    images = torch.randn(3, 3, *size).double()
    with torch.no_grad():
        together = call(images)
        turned = call(images.flip(0))
        alone = [call(image[None]) for image in images]
    assert all(out.isfinite().all() for out in together)
    assert all(out.std() > 0 for out in together)
    for i in range(3):
        for a, b, c in zip(alone[i], together, turned):
            torch.testing.assert_close(a[0], b[i], rtol=0, atol=1e-12)
            torch.testing.assert_close(a[0], c[2 - i], rtol=0, atol=1e-12)
