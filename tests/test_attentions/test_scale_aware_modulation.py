import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmattn.attentions import ScaleAwareModulation


def test_heads_have_kernels_of_growing_size():
    layer = ScaleAwareModulation(16)
    convs = layer.local_convs
    sides = [getattr(convs, f'weight{i}').shape[-1] for i in range(4)]
    assert sides == [3, 5, 7, 9]


def modulator(layer, x):
    """What the values are multiplied by, ``(B, H, W, C)``."""
    seen = []
    with layer.proj.register_forward_pre_hook(
        lambda module, args: seen.append(args[0])
    ):
        layer(x)
    return seen[0] / layer.v(x)


def by_modules(layer, x):
    """The expanded groups, ``(B, 2 * C, H, W)``, head by head."""
    heads = layer.s(x).permute(0, 3, 1, 2).chunk(layer.num_heads, dim=1)
    convs = dict(layer.local_convs.named_parameters())
    outs = [
        F.conv2d(
            head,
            convs[f'weight{i}'],
            convs[f'bias{i}'],
            padding='same',
            groups=head.shape[1],
        )
        for i, head in enumerate(heads)
    ]
    return layer.expand(torch.stack(outs, dim=2).flatten(1, 2))


@pytest.mark.parametrize('training', [True, False])
def test_values_are_multiplied_by_the_modulator(training):
    layer = ScaleAwareModulation(8, 2).double()
    x = torch.randn(2, 5, 6, 8).double()
    layer(x)  # so that the statistics are not those of the start
    layer.train(training)
    want = layer.mix(F.gelu(layer.norm(by_modules(layer, x))))
    torch.testing.assert_close(
        modulator(layer, x), want.permute(0, 2, 3, 1), rtol=1e-12, atol=1e-12
    )


def test_each_group_sees_every_scale_and_no_other_group():
    layer = ScaleAwareModulation(8, 2).double().eval()
    layer.s = layer.v = nn.Identity()
    # Channel j of the modulator shows what group j % 4 of 4 channels holds.
    shown = torch.eye(4).repeat_interleave(4, dim=1).repeat(2, 1)
    layer.mix.weight.data.copy_(shown[..., None, None])
    maps = torch.rand(1, 9, 9, 8).double() + 1
    before = modulator(layer, maps)
    for channel in range(8):
        changed = maps.clone()
        changed[..., channel] += 1
        moved = (modulator(layer, changed) - before).abs().amax((0, 1, 2))
        # Channel j of either head lies in group j.
        group = channel % 4
        moved = (moved > 1e-9).nonzero().flatten().tolist()
        assert moved == [group, group + 4]


def test_training_normalizes_over_the_batch():
    layer = ScaleAwareModulation(8, 2).double()
    x = torch.randn(2, 5, 6, 8).double()
    normed = {}
    layer.norm.register_forward_hook(
        lambda module, args, out: normed.update(out=out)
    )
    layer(x)
    mean = normed['out'].mean((0, 2, 3))
    torch.testing.assert_close(mean, torch.zeros(16).double())
    torch.testing.assert_close(
        layer.norm.running_mean, 0.1 * by_modules(layer, x).mean((0, 2, 3))
    )


def test_projections_without_bias():
    layer = ScaleAwareModulation(8, 2, qkv_bias=False)
    assert layer.v.bias is None and layer.s.bias is None
    assert layer.proj.bias is not None
