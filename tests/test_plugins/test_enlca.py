import pytest
import torch
from golden import difference

from mmattn.plugins import ENLCA

NAMES = {
    'conv_match1.0': 'attn.q',
    'conv_match2.0': 'attn.k',
    'conv_assembly.0': 'attn.v',
    'attn_fn.projection_matrix': 'attn.projection',
}


@pytest.fixture
def case(golden_case):
    return golden_case('enlca_block')


@pytest.fixture
def block(case):
    block = ENLCA(64).double()
    renamed = {}
    for key in case['state']:
        name = key
        for old, new in NAMES.items():
            name = name.replace(old, new)
        value = torch.from_numpy(case['state'][key])
        renamed[name] = value.flatten(1) if value.ndim == 4 else value
    block.load_state_dict(renamed, strict=True)
    return block


@pytest.fixture
def images(case):
    x, offset = (torch.from_numpy(v) for v in case['inputs'].values())
    return dict(plain=x, shifted=x / 4 + offset)


def test_equals_published_module(case, block, images):
    maps = {}
    block.attn.register_forward_hook(
        lambda module, args, out: maps.update(attn_out=out)
    )
    with torch.no_grad():
        shifted = block(images['shifted'])
        out = block(images['plain'])
    captures = case['captures']
    assert difference(captures['out'], out.numpy()) <= 1e-9
    assert difference(captures['out_shifted'], shifted.numpy()) <= 1e-9
    attended = maps['attn_out'].flatten(1, 2)[:, None].numpy()
    assert difference(captures['attn_out'], attended) <= 1e-9
    assert sum(p.numel() for p in block.parameters()) == 6_240


@pytest.mark.parametrize(
    'loss, image',
    [('loss_train', 'plain'), ('loss_train_shifted', 'shifted')],
)
def test_equals_published_loss(loss, image, case, block, images):
    want = float(case['arrays'][loss])
    assert want > 0
    got = block.train().contrastive_loss(images[image]).item()
    assert abs(got - want) <= 1e-9 * want


def test_published_loss_is_zero_in_evaluation_mode(case, block, images):
    got = block.eval().contrastive_loss(images['shifted'])
    assert got.item() == case['arrays']['loss_eval'] == 0


def test_loss_teaches_queries_and_keys():
    block = ENLCA(8, num_heads=2, reduction=2)
    # Keys that are much alike: the loss is not cut off at zero.
    block.contrastive_loss(1 + 0.2 * torch.randn(1, 8, 9, 9)).backward()
    for layer in (block.attn.q, block.attn.k):
        assert layer.weight.grad.abs().max() > 0
    assert block.attn.v.weight.grad is None


def test_loss_of_a_map_of_few_tokens():
    with pytest.raises(ValueError, match='at least 65 tokens, got 64'):
        ENLCA(8).contrastive_loss(torch.randn(1, 8, 8, 8))


def test_reduction_that_does_not_divide_the_channels():
    with pytest.raises(
        ValueError,
        match='ENLCA expects reduction to divide in_channels, got '
        'in_channels=10, reduction=4',
    ):
        ENLCA(10)
