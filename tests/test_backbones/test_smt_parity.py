"""Equality of SMT with the published model, in float64.

The numbers come from the published code, the weights from a rule; see
``tests/golden/README.md``.
"""

import pytest
import torch
from golden import difference

from mmattn.backbones import SMT
from mmattn.checkpoints import convert

TOLERANCE = 1e-9

ARCHS = {
    'smt_tiny_224': 'tiny',
    'smt_tiny_96x160': 'tiny',
    'smt_tiny_layerscale_64x96': dict(SMT.arch_zoo['tiny'], layer_scale=1e-4),
}


def record_outputs(model):
    """Let a forward pass leave the maps that the cases captured."""
    maps = {}

    def keep(module, name):
        def hook(module, args, out):
            maps[name] = out.detach().flatten(1, 2).numpy()

        module.register_forward_hook(hook)

    def keep_modulator(attn):
        values = []
        attn.v.register_forward_hook(lambda v, args, out: values.append(out))

        def hook(proj, args):
            modulator = args[0] / values.pop()
            # It was captured as (B, C, H, W), not as tokens.
            maps['modulator'] = modulator.permute(0, 3, 1, 2).numpy()

        attn.proj.register_forward_pre_hook(hook)

    keep(model.stem, 'stem')
    for i, stage in enumerate(model.stages):
        keep(stage.blocks[-1], f'stage{i + 1}')
        keep(getattr(model, f'norm{i}'), f'stage{i + 1}_norm')
    first = model.stages[0].blocks[0]
    keep(first, 'first_block')
    keep(first.attn, 'modulation_out')
    keep_modulator(first.attn)
    keep(model.stages[2].blocks[1].attn, 'self_attention_out')
    return maps


@pytest.mark.parametrize('impl', ['reference', 'auto'])
@pytest.mark.parametrize('name', ARCHS)
def test_backbone_equals_published_model(name, impl, golden_case):
    case = golden_case(name)
    state = case['state']
    converted = convert({key: torch.from_numpy(state[key]) for key in state})
    assert (converted.family, converted.arch) == ('SMT', ARCHS[name])
    model = SMT(converted.arch, out_indices=(3,)).double().eval()
    model.load_state_dict(converted.backbone, strict=True)
    for module in model.modules():
        if hasattr(module, 'impl'):
            module.impl = impl
    maps = record_outputs(model)
    with torch.no_grad():
        (out,) = model(torch.from_numpy(case['inputs']['x']))

    assert set(maps) == set(case['captures'])
    for name, capture in case['captures'].items():
        assert difference(capture, maps[name]) <= TOLERANCE, name

    head = converted.head
    logits = out.mean((2, 3)) @ head['fc.weight'].T + head['fc.bias']
    want = torch.from_numpy(case['arrays']['logits'])
    assert (logits - want).abs().max() <= TOLERANCE * want.abs().max()
