import torch
from torch import nn

from mmattn.attentions import ScaleAwareModulation


def test_heads_have_kernels_of_growing_size():
    layer = ScaleAwareModulation(16)
    sides = [conv.kernel_size for conv in layer.local_convs]
    assert sides == [(3, 3), (5, 5), (7, 7), (9, 9)]
    assert all(conv.groups == 4 for conv in layer.local_convs)


def test_values_are_multiplied_by_the_modulator():
    layer = ScaleAwareModulation(8, 2).double().eval()
    x = torch.randn(2, 5, 6, 8).double()
    want = layer(x)
    seen = {}
    layer.mix.register_forward_hook(
        lambda module, args, out: seen.update(modulator=out)
    )
    assert torch.equal(layer(x), want)
    product = seen['modulator'].permute(0, 2, 3, 1) * layer.v(x)
    torch.testing.assert_close(want, layer.proj(product))


def test_each_group_sees_every_scale_and_no_other_group():
    layer = ScaleAwareModulation(8, 2).double().eval()
    layer.s = layer.v = nn.Identity()
    layer.v.in_features = 8
    expanded = {}
    layer.expand.register_forward_hook(
        lambda module, args, out: expanded.update(out=out)
    )
    maps = torch.randn(1, 9, 9, 8).double()
    layer(maps)
    before = expanded['out']
    for channel in range(8):
        changed = maps.clone()
        changed[..., channel] += 1
        layer(changed)
        moved = (expanded['out'] - before).abs().amax((0, 2, 3)) > 0
        # Channel j of either head lies in group j of 4 outputs.
        group = channel % 4
        assert moved.nonzero().flatten().tolist() == list(
            range(4 * group, 4 * group + 4)
        )


def test_training_normalises_over_the_batch():
    layer = ScaleAwareModulation(8, 2).double()
    x = torch.randn(2, 5, 6, 8).double()
    expanded, normed = {}, {}
    layer.expand.register_forward_hook(
        lambda module, args, out: expanded.update(out=out)
    )
    layer.norm.register_forward_hook(
        lambda module, args, out: normed.update(out=out)
    )
    layer(x)
    mean = normed['out'].mean((0, 2, 3))
    torch.testing.assert_close(mean, torch.zeros(16).double())
    torch.testing.assert_close(
        layer.norm.running_mean, 0.1 * expanded['out'].mean((0, 2, 3))
    )


def test_projections_without_bias():
    layer = ScaleAwareModulation(8, 2, qkv_bias=False)
    assert layer.v.bias is None and layer.s.bias is None
    assert layer.proj.bias is not None
