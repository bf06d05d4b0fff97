"""Plugins inside the ResNets of mmdet and mmseg."""

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

PLUGINS = {
    'windows': dict(
        type='mmattn.AttentionPlugin',
        attention=dict(type='mmattn.WindowAttention', num_heads=4),
        init_scale=1.0,
    ),
    'keys': dict(
        type='mmattn.AttentionPlugin',
        attention=dict(
            type='mmattn.KeyValueAttention',
            num_heads=4,
            spatial_reduction=2,
        ),
        init_scale=1.0,
    ),
    'enltb': dict(type='mmattn.ENLTB'),
    'enlca': dict(type='mmattn.ENLCA'),
}


def build(host, plugins):
    pytest.importorskip(host)
    with DefaultScope.overwrite_default_scope(host):
        return MODELS.build(
            dict(
                type='ResNet' if host == 'mmdet' else 'ResNetV1c',
                depth=50,
                base_channels=8,
                stem_channels=8,
                plugins=plugins,
                norm_eval=False,
            )
        )


@pytest.mark.parametrize('plugin', PLUGINS)
@pytest.mark.parametrize('host', ['mmdet', 'mmseg'])
def test_a_step_of_training(host, plugin):
    stages = (False, True, False, True)
    cfg = dict(cfg=PLUGINS[plugin], stages=stages, position='after_conv3')
    model = build(host, [cfg])
    model.train()
    name = type(MODELS.build(dict(PLUGINS[plugin], in_channels=8))).__name__
    for has, depth, stage in zip(stages, (3, 4, 6, 3), range(1, 5)):
        layer = getattr(model, f'layer{stage}')
        found = [type(m).__name__ for m in layer.modules()].count(name)
        assert found == (depth if has else 0)

    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    x = torch.randn(2, 3, 61, 77)
    before = [p.clone() for p in model.parameters()]
    outs = model(x)
    assert [out.shape[1] for out in outs] == [32, 64, 128, 256]
    sum((out * torch.rand_like(out)).mean() for out in outs).backward()
    optimizer.step()
    assert all(p.isfinite().all() for p in model.parameters())
    moved = [
        not torch.equal(p, old) for p, old in zip(model.parameters(), before)
    ]
    # One bias has no effect: that of the keys before a softmax.
    assert sum(moved) > 0.95 * len(moved)


@pytest.mark.parametrize('position', ['after_conv1', 'after_conv2'])
def test_after_any_convolution_and_several_at_once(position):
    model = build(
        'mmdet',
        [
            dict(cfg=dict(PLUGINS['windows'], postfix=1), position=position),
            dict(cfg=dict(PLUGINS['windows'], postfix=2), position=position),
        ],
    )
    outs = model(torch.randn(1, 3, 64, 64))
    sum(out.sum() for out in outs).backward()
    block = model.layer1[0]
    assert block.attention1.scale.grad.abs().max() > 0
    assert block.attention2.scale.grad.abs().max() > 0
