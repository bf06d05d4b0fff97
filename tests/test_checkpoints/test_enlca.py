import pytest
import torch
from golden import difference

from mmattn.checkpoints import convert, detect_source
from mmattn.plugins import ENLCA


@pytest.fixture
def case(golden_case):
    return golden_case('enlca_block')


@pytest.fixture
def official(case):
    return {k: torch.from_numpy(case['state'][k]) for k in case['state']}


@pytest.mark.parametrize('place', ['', 'body.8.'])
def test_a_single_module_loads_and_gives_the_same_output(
    place, official, case
):
    state = {place + name: value for name, value in official.items()}
    state['head.0.weight'] = torch.zeros(1)
    assert detect_source(state) == 'enlca'
    converted = convert(state)
    assert converted.family == 'ENLCA'
    assert converted.arch == dict(
        in_channels=64, reduction=4, num_features=128
    )
    assert converted.unused == ['head.0.weight']
    assert converted.added == [] and converted.head == {}
    block = ENLCA(**converted.arch).double()
    block.load_state_dict(converted.backbone, strict=True)
    with torch.no_grad():
        out = block(torch.from_numpy(case['inputs']['x']))
    assert difference(case['captures']['out'], out.numpy()) <= 1e-9


def test_several_modules_keep_their_prefix(official):
    state = {
        f'body.{place}.{name}': value * place
        for place in (1, 2)
        for name, value in official.items()
    }
    backbone = convert(state).backbone
    assert len(backbone) == 2 * len(official)
    for place in (1, 2):
        block = ENLCA(64).double()
        before = f'body.{place}.'
        block.load_state_dict(
            {
                name.removeprefix(before): value
                for name, value in backbone.items()
                if name.startswith(before)
            },
            strict=True,
        )
        assert torch.equal(
            block.attn.projection,
            place * official['attn_fn.projection_matrix'],
        )
