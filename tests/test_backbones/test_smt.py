import pytest
import torch
from torch import nn

from mmattn.attentions import MultiHeadSelfAttention, ScaleAwareModulation
from mmattn.backbones import SMT


@pytest.mark.parametrize(
    'arch, parameters',
    [
        ('tiny', 11_506_536),
        ('small', 22_550_952),
        ('base', 32_037_352),
        ('large', 80_620_264),
        (dict(SMT.arch_zoo['tiny'], layer_scale=1e-4), 11_512_424),
    ],
)
def test_parameters_of_the_published_models(arch, parameters):
    with torch.device('meta'):
        model = SMT(arch, out_indices=(3,))
    head = 1000 * (model.out_channels[-1] + 1)
    total = head + sum(p.numel() for p in model.parameters())
    assert total == parameters


def test_stages_modulate_alternate_and_attend():
    with torch.device('meta'):
        model = SMT('small')
    kinds = [[type(b.attn) for b in stage.blocks] for stage in model.stages]
    assert kinds == [
        [ScaleAwareModulation] * 3,
        [ScaleAwareModulation] * 4,
        [ScaleAwareModulation, MultiHeadSelfAttention] * 9,
        [MultiHeadSelfAttention] * 2,
    ]


def test_the_next_stage_takes_normalised_maps():
    model = SMT('nano', out_indices=(1,)).eval()
    model.norm0.register_forward_hook(lambda module, args, out: 0 * out)
    x = torch.rand(1, 3, 32, 32)
    (without,) = model(x)
    (other,) = model(x + 1)
    assert torch.equal(without, other)


def test_norms_between_stages_are_there_whatever_is_returned():
    full = SMT('nano').double().eval()
    last = SMT('nano', out_indices=(3,)).double().eval()
    last.load_state_dict(full.state_dict(), strict=True)
    assert {f'norm{i}' for i in range(4)} <= dict(last.named_modules()).keys()
    x = torch.rand(1, 3, 32, 48).double()
    assert torch.equal(last(x)[0], full(x)[3])


def test_norms_between_stages_have_the_depth_of_what_follows():
    model = SMT('nano')
    depths = [model.get_layer_depth(f'norm{i}.weight')[0] for i in range(4)]
    assert depths == [3, 5, 7, 9]
    for i in range(3):
        after = f'stages.{i + 1}.downsample.conv.weight'
        assert model.get_layer_depth(after)[0] == depths[i]


def test_epsilons_of_the_published_model():
    epsilons = {
        name: module.eps
        for name, module in SMT('nano').named_modules()
        if isinstance(module, nn.LayerNorm | nn.BatchNorm2d)
    }
    small = {name for name, eps in epsilons.items() if eps == 1e-6}
    assert set(epsilons.values()) == {1e-6, 1e-5}
    assert small == {
        name
        for name in epsilons
        if name.endswith(('norm1', 'norm2')) or name in ('norm0', 'norm3')
    }


def statistics(model):
    return {
        name: buffer.clone()
        for name, buffer in model.named_buffers()
        if name.endswith(('running_mean', 'running_var', 'batches_tracked'))
    }


def changed(before, model):
    after = statistics(model)
    return {k for k in before if not torch.equal(before[k], after[k])}


def test_norm_eval_keeps_the_statistics_of_stem_and_blocks():
    model = SMT('nano', norm_eval=True).train()
    before = statistics(model)
    assert {k.split('.')[0] for k in before} == {'stem', 'stages'}
    model(torch.rand(2, 3, 32, 32))
    assert changed(before, model) == set()
    model = SMT('nano').train()
    before = statistics(model)
    model(torch.rand(2, 3, 32, 32))
    assert changed(before, model) == set(before)


def test_frozen_stages_keep_their_statistics():
    model = SMT('nano', frozen_stages=1).train()
    before = statistics(model)
    model(torch.rand(2, 3, 32, 32))
    assert changed(before, model) == {
        k for k in before if not k.startswith(('stem', 'stages.0'))
    }


def test_layer_scale_starts_small_and_is_learned():
    model = SMT(dict(SMT.arch_zoo['nano'], layer_scale=1e-4))
    block = model.stages[2].blocks[1]
    assert (block.gamma1.weight == 1e-4).all()
    x = torch.randn(1, 4, 4, 96)
    torch.testing.assert_close(block(x), x, rtol=0, atol=0.01)
    block(x).sum().backward()
    assert block.gamma2.weight.grad.abs().max() > 0


def test_sides_that_four_does_not_divide_are_padded_at_bottom_and_right():
    stem = SMT('nano').stem.eval()
    x = torch.randn(2, 3, 37, 42)
    padded = torch.zeros(2, 3, 40, 44)
    padded[:, :, :37, :42] = x
    assert stem(x).shape == (2, 10, 11, 24)
    torch.testing.assert_close(stem(x), stem(padded))
