"""Equality of CSWin and BOAT-CSWin with the published models, in float64.

The numbers come from the published code, the weights from a rule; see
``tests/golden/README.md``.
"""

import numpy as np
import pytest
import torch
from golden import difference

from mmattn.backbones import BOATCSWin, CSWin
from mmattn.checkpoints import convert

TOLERANCE = 1e-9
STAGES = (0, 1, 2, 3)

CASES = {
    'cswin_tiny_224': (CSWin, (3,)),
    'boat_cswin_tiny_224': (BOATCSWin, (3,)),
    'cswin_dense_tiny_96x160': (CSWin, STAGES),
    'cswin_dense_tiny_101x147': (CSWin, STAGES),
}


def record_outputs(model, is_classifier):
    """Let a forward pass leave the maps that the cases captured."""
    maps = {}

    def keep(name):

        def hook(module, args, out):
            maps[name] = out.detach().flatten(1, 2).numpy()

        return hook

    def keep_branches(suffix):

        def hook(module, args):
            halves = args[0].detach().flatten(1, 2).chunk(2, dim=-1)
            for i, half in enumerate(halves):
                maps[f'branch{i}{suffix}'] = half.numpy()

        return hook

    model.stem.register_forward_hook(keep('stem'))
    for i, stage in enumerate(model.stages):
        stage.blocks[-1].register_forward_hook(keep(f'stage{i + 1}'))
    first = model.stages[0].blocks[0]
    first.attn.proj.register_forward_pre_hook(keep_branches(''))
    if is_classifier:
        first.register_forward_hook(keep('first_block'))
        model.norm3.register_forward_hook(keep('final_norm'))
    else:
        padded = model.stages[2].blocks[0].attn
        padded.proj.register_forward_pre_hook(keep_branches('_stage3'))
    if isinstance(model, BOATCSWin):
        first.feature_norm.register_forward_hook(keep('content_in'))
        first.feature_attn.register_forward_hook(keep('content_out'))
    return maps


def check_maps(maps, case):
    # Where images leaked into each other upstream, the numbers of the code
    # that keeps them apart count.
    wanted = {
        key.removesuffix('_no_leak'): capture
        for key, capture in case['captures'].items()
        if not key.endswith('_official')
    }
    assert set(maps) == set(wanted)
    for key, capture in wanted.items():
        assert difference(capture, maps[key]) <= TOLERANCE, key


@pytest.mark.parametrize('name', CASES)
def test_backbone_equals_published_model(name, golden_case):
    case = golden_case(name)
    family, out_indices = CASES[name]
    state = case['state']
    converted = convert({key: torch.from_numpy(state[key]) for key in state})
    assert (converted.family, converted.arch) == (family.__name__, 'tiny')
    with torch.device('meta'):
        model = family('tiny', out_indices=out_indices).eval()
    model.load_state_dict(converted.backbone, strict=True, assign=True)
    is_classifier = out_indices == (3,)
    maps = record_outputs(model, is_classifier)
    # Both, but at 224 x 224 the fast one alone, for the sake of time.
    impls = ('sdpa',) if is_classifier else ('reference', 'sdpa')
    for impl in impls:
        for module in model.modules():
            if hasattr(module, 'impl'):
                module.impl = impl
        maps.clear()
        with torch.no_grad():
            outs = model(torch.from_numpy(case['inputs']['x']))
        if not is_classifier:
            maps |= {f'out{i + 1}': out.numpy() for i, out in enumerate(outs)}
        check_maps(maps, case)

    arrays = case['arrays']
    logits = arrays.get('logits', arrays.get('logits_no_leak'))
    if logits is not None:
        head = converted.head
        got = outs[0].mean((2, 3)) @ head['fc.weight'].T + head['fc.bias']
        error = np.abs(got.numpy() - logits).max()
        assert error <= TOLERANCE * np.abs(logits).max()
    if 'cluster_order' in arrays:
        layer = model.stages[0].blocks[0].feature_attn
        x = torch.from_numpy(maps['content_in'])
        order = layer.cluster(layer.qkv(x.unflatten(1, (56, 56))))
        assert (order[0, 0].numpy() == arrays['cluster_order']).all()
