import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmattn.attentions import ScaleAwareModulation
from mmattn.ops import (
    definitions_first,
    forced_implementations,
    watch_choices,
)
from mmattn.ops.cpu_kernels import building


def test_heads_have_kernels_of_growing_size():
    layer = ScaleAwareModulation(16)
    sides = [conv.kernel_size for conv in layer.local_convs]
    assert sides == [(3, 3), (5, 5), (7, 7), (9, 9)]
    assert all(conv.groups == 4 for conv in layer.local_convs)


def modulator(layer, x):
    """What the values are multiplied by, ``(B, H, W, C)``."""
    seen = []
    with layer.proj.register_forward_pre_hook(
        lambda module, args: seen.append(args[0])
    ):
        layer(x)
    return seen[0] / layer.v(x)


def by_modules(layer, x):
    """The widened groups, ``(B, 2 * C, H, W)``, layer by layer."""
    heads = layer.s(x).permute(0, 3, 1, 2).chunk(layer.num_heads, dim=1)
    heads = [conv(head) for conv, head in zip(layer.local_convs, heads)]
    return layer.expand(torch.stack(heads, dim=2).flatten(1, 2))


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


def chosen_by(layer, x):
    """Which operations run in the layer, and which implementations."""
    chosen = {}
    with watch_choices(lambda row: chosen.update({row.operation: row.name})):
        out = layer(x)
    return chosen, out


@pytest.mark.parametrize('impl, row', [('auto', 'cpp'), ('reference',) * 2])
def test_inference_is_one_operation(impl, row):
    layer = ScaleAwareModulation(8, 2, impl=impl).double().eval()
    x = torch.randn(2, 5, 6, 8).double()
    chosen, want = chosen_by(layer, x)
    assert 'mixed_expansion' not in chosen  # it may have no gradient
    with torch.no_grad():
        chosen, out = chosen_by(layer, x)
    assert chosen['mixed_expansion'] == row
    torch.testing.assert_close(out, want, rtol=1e-12, atol=1e-12)


def test_what_is_forced_for_inference_is_told_once_in_training(caplog):
    sys.modules['mmattn.ops.mixed_expansion']._warn_of_parts.cache_clear()
    layer, x = ScaleAwareModulation(8, 2), torch.randn(2, 5, 6, 8)
    # Parts of the same name are what was meant.
    with definitions_first():
        layer(x)
    ScaleAwareModulation(8, 2, impl='reference')(x)
    assert caplog.messages == []
    with forced_implementations(dict(mixed_expansion='cpp')):
        chosen, _ = chosen_by(layer, x)
        assert 'mixed_expansion' not in chosen
        layer.eval()(x)  # with gradients
        with torch.no_grad():
            chosen, _ = chosen_by(layer, x)
        assert chosen['mixed_expansion'] == 'cpp'
    (text,) = caplog.messages
    assert text.startswith("mixed_expansion is forced to 'cpp', which takes e")


def test_what_is_forced_and_cannot_run_ends_a_training(monkeypatch):
    monkeypatch.setattr(building, '_MISSING', 'there is no C++ compiler')
    with forced_implementations(dict(mixed_expansion='cpp')):
        with pytest.raises(
            RuntimeError, match="run impl 'cpp': there is no C.. compiler"
        ):
            ScaleAwareModulation(8, 2)(torch.randn(2, 5, 6, 8))


def test_a_row_of_one_operation_alone_is_no_choice_of_the_layer():
    layer = ScaleAwareModulation(8, 2, impl='parts').eval()
    with torch.no_grad(), pytest.raises(ValueError, match="got 'parts'"):
        layer(torch.randn(2, 5, 6, 8))


def test_each_group_sees_every_scale_and_no_other_group():
    layer = ScaleAwareModulation(8, 2).double().eval()
    layer.s = layer.v = nn.Identity()
    layer.v.in_features = 8
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


def test_training_normalises_over_the_batch():
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
