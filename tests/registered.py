"""Every registered module, small, with the arguments of one call."""

from math import prod

import torch
from mmengine.registry import DefaultScope

import mmattn.heads  # noqa: F401
from mmattn.registry import MODELS

MODELS.import_from_location()
NAMES = sorted(MODELS.module_dict)
EMBED_DIMS = 16
CHANNELS = [8, 16, 24, 32, 40]


def build(name, seed=0, **kwargs):
    """The module of a registered name; of a backbone the smallest arch.

    An AttentionPyramid is named with its arch: ``AttentionPyramid-swin-nano``.
    """
    torch.manual_seed(seed)
    cls_name, _, arch = name.partition('-')
    cls = MODELS.get(cls_name)
    kind = kind_of(name)
    if kind == 'backbones':
        nano = next(a for a in cls.arch_zoo if a.endswith('nano'))
        return cls(arch or nano, **kwargs)
    if kind == 'attentions':
        return cls(embed_dims=EMBED_DIMS, num_heads=4, **kwargs)
    if kind == 'plugins':
        if cls_name == 'AttentionPlugin':
            attention = dict(type='mmattn.FeatureSpaceAttention', num_heads=4)
            kwargs = dict(attention=attention, init_scale=1.0, **kwargs)
        return cls(in_channels=EMBED_DIMS, **kwargs)
    if kind == 'necks':
        sizes = dict(in_channels=CHANNELS[:4], out_channels=EMBED_DIMS)
        return cls(**sizes, num_outs=5, **kwargs)
    with DefaultScope.overwrite_default_scope('mmseg'):
        return cls(
            in_channels=CHANNELS[1:], channels=EMBED_DIMS, num_classes=3
        )


def make_args(name, batch=2, size=(64, 48), dtype=torch.float32):
    """Arguments of a call, drawn from a seed of their own."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape):
        numbers = torch.randn(prod(shape), generator=generator)
        return numbers.view(shape).to(dtype)

    H, W = size
    kind = kind_of(name)
    if kind == 'backbones':
        return (draw(batch, 3, H, W),)
    if kind == 'attentions':
        return (draw(batch, H // 4, W // 4, EMBED_DIMS),)
    if kind == 'plugins':
        return (draw(batch, EMBED_DIMS, H // 4, W // 4),)
    channels = CHANNELS[:4] if kind == 'necks' else CHANNELS
    maps = [
        draw(batch, C, H // 2**i, W // 2**i) for i, C in enumerate(channels)
    ]
    return (maps,)


def kind_of(name):
    """The package of a registered module, such as ``'backbones'``."""
    return MODELS.get(name.partition('-')[0]).__module__.split('.')[1]


def call(model, args):
    """The tensors of a module's output, as a list."""
    outs = model(*args)
    return [outs] if isinstance(outs, torch.Tensor) else list(outs)
