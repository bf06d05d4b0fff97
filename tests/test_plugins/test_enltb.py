import pytest
import torch
from golden import difference

from mmattn.plugins import ENLTB

NAMES = {
    'conv_match1.0': 'attn.q',
    'conv_match2.0': 'attn.k',
    'conv_assembly.0': 'attn.v',
    'attn.projection_matrix': 'attn.projection',
}


def published(state):
    """Tensors of the published block in our names."""
    renamed = {}
    for key in state:
        name = key
        for old, new in NAMES.items():
            name = name.replace(old, new)
        value = torch.from_numpy(state[key])
        renamed[name] = value.flatten(1) if value.ndim == 4 else value
    return renamed


@pytest.mark.parametrize(
    'name, amplification',
    [('enltb_block', 1.0), ('enltb_block_scaled', 6**0.5)],
)
def test_equals_published_block(name, amplification, golden_case):
    case = golden_case(name)
    block = ENLTB(64, amplification=amplification).double()
    block.load_state_dict(published(case['state']), strict=True)
    assert sum(p.numel() for p in block.parameters()) == 45_824
    maps = {}
    block.attn.register_forward_hook(
        lambda module, args, out: maps.update(attn_out=out)
    )
    with torch.no_grad():
        out = block(torch.from_numpy(case['inputs']['x']))
    captures = case['captures']
    assert difference(captures['out'], out.numpy()) <= 1e-9
    attended = maps['attn_out'].flatten(1, 2)[:, None].numpy()
    assert difference(captures['attn_out'], attended) <= 1e-9


def test_options_reach_the_attention():
    block = ENLTB(8, num_heads=2, num_features=5, mlp_ratio=2.0, seed=3)
    assert block.attn.projection.shape == (5, 4)
    assert block.attn.num_heads == 2
    assert block.mlp.fc1.out_features == 16
    other = ENLTB(8, num_heads=2, num_features=5, seed=4)
    assert not torch.equal(block.attn.projection, other.attn.projection)


def test_drop_path_acts_in_training():
    block = ENLTB(8, drop_path_rate=0.99)
    x = torch.randn(1, 8, 4, 4)
    assert any(torch.equal(block(x), x) for _ in range(10))
    assert not torch.equal(block.eval()(x), x)
