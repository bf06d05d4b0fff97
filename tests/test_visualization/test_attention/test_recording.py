import pytest
import torch
from torch import nn

from mmattn.attentions import KeyValueAttention
from mmattn.backbones import AttentionPyramid, BOATSwin
from mmattn.plugins import ENLCA
from mmattn.visualization.attention import CallRecorder, select_layers


@pytest.fixture(scope='module')
def backbone():
    return BOATSwin('nano').eval()


def names(model, **chosen):
    return list(select_layers(model, **chosen))


def test_all_layers_are_found_also_in_a_wrapped_model(backbone, process_group):
    found = names(backbone)
    assert len(found) == 11  # eight windows, three times clusters
    assert found[1:3] == [
        'stages.0.blocks.1.attn',
        'stages.0.blocks.1.feature_attn',
    ]
    wrapped = nn.parallel.DistributedDataParallel(backbone)
    assert names(wrapped) == found


def test_stages_and_blocks(backbone):
    assert names(backbone, stages=[1], blocks=[0]) == [
        'stages.1.blocks.0.attn'
    ]
    assert names(backbone, stages=[-1], blocks=[-1]) == [
        'stages.3.blocks.1.attn'
    ]
    assert len(names(backbone, blocks=[-1])) == 7


def test_nothing_to_select(backbone):
    with pytest.raises(ValueError, match=r'stages \[7\]'):
        select_layers(backbone, stages=[7])
    with pytest.raises(ValueError, match='no attention in stages'):
        select_layers(ENLCA(8), blocks=[0])
    with pytest.raises(ValueError, match='Linear'):
        select_layers(nn.Linear(2, 2))


def test_inputs_are_those_of_the_first_call(backbone):
    layers = select_layers(backbone, stages=[0], blocks=[0])
    images = torch.rand(2, 3, 40, 52)
    with CallRecorder(backbone, layers) as calls, torch.no_grad():
        backbone(images)
        backbone(torch.rand(1, 3, 64, 64))
    assert calls.image_size == (40, 52)
    ((x,),) = calls.inputs.values()
    block = backbone.stages[0].blocks[0]
    with torch.no_grad():
        expected = block.norm1(backbone.stem(images))
    torch.testing.assert_close(x, expected)
    assert not block.attn._forward_pre_hooks


def test_inputs_by_name_are_recorded_in_their_order():
    layer = KeyValueAttention(8, 2)
    x, key = torch.rand(1, 4, 4, 8), torch.rand(1, 2, 2, 8)
    with CallRecorder(layer, dict(a=layer)) as calls:
        layer(x=x, key=key)
    assert [tuple(y.shape) for y in calls.inputs['a']] == [
        (1, 4, 4, 8),
        (1, 2, 2, 8),
    ]


def test_an_arch_of_other_attentions():
    assert names(AttentionPyramid('enltb-nano'), stages=[0], blocks=[1]) == [
        'stages.0.blocks.1.attn'
    ]
