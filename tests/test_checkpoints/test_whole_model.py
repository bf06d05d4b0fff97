"""Published checkpoints in whole models, loaded by mmengine."""

import pytest
import torch
from mmengine.runner.checkpoint import load_checkpoint, load_state_dict
from torch import nn

from mmattn.backbones import BOATSwin
from mmattn.checkpoints import convert

PUBLISHED = {
    'boat_swin_tiny_224': 'boat-swin-tiny_8xb128-300e_in1k',
    'boat_cswin_tiny_224': 'boat-cswin-tiny_8xb256-300e_in1k',
    'cswin_tiny_224': 'cswin-tiny_8xb256-300e_in1k',
    'smt_tiny_224': 'smt-tiny_8xb128-300e_in1k',
}


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = BOATSwin('nano')
        self.neck = nn.Linear(2, 2)


@pytest.fixture
def logged(monkeypatch):
    """Messages about keys that do not match."""
    lines = []
    monkeypatch.setattr(
        'mmengine.runner.checkpoint.print_log',
        lambda message, **_: lines.append(message),
    )
    return lines


@pytest.mark.parametrize('case', PUBLISHED)
def test_get_model_loads_all_of_a_published_file(
    case, golden_case, tmp_path, logged
):
    mmpretrain = pytest.importorskip('mmpretrain')
    state = {
        name: torch.full(shape, float(index))
        for index, (name, shape, _) in enumerate(
            golden_case(case)['meta']['state_dict']
        )
    }
    path = tmp_path / 'published.pth'
    torch.save(dict(model=state, epoch=300), path)
    model = mmpretrain.get_model(PUBLISHED[case], pretrained=str(path))
    assert not [line for line in logged if 'do not match' in line]
    want = convert(state).whole()
    got = model.state_dict()
    assert got.keys() <= want.keys()
    for name, value in got.items():
        assert torch.equal(value, want[name]), name


def test_other_parts_of_a_model_are_loaded_too(tmp_path, logged):
    swin = pytest.importorskip('mmdet.models.backbones.swin').SwinTransformer
    theirs = swin(embed_dims=24, depths=(2,) * 4, num_heads=(1, 2, 4, 8))
    state = {f'backbone.{k}': v for k, v in theirs.state_dict().items()}
    state |= {'neck.weight': torch.eye(2), 'neck.bias': torch.ones(2)}
    path = tmp_path / 'detector.pth'
    torch.save(dict(state_dict=state), path)
    model = Model()
    load_checkpoint(model, str(path))
    assert torch.equal(model.neck.weight, torch.eye(2))
    # Feature-space attention is not in the checkpoint.
    (line,) = (line for line in logged if 'do not match' in line)
    assert 'unexpected' not in line and 'feature_attn' in line
    qkv = theirs.stages[2].blocks[1].attn.w_msa.qkv.weight
    assert torch.equal(model.backbone.stages[2].blocks[1].attn.qkv.weight, qkv)


def test_own_and_unknown_checkpoints_are_loaded_as_they_are(logged):
    model, other = Model(), Model()
    load_state_dict(model, other.state_dict())
    assert logged == []
    for name, value in other.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    load_state_dict(model, {'neck.weight': torch.eye(2), 'x.y': torch.ones(1)})
    assert torch.equal(model.neck.weight, torch.eye(2))
    assert 'x.y' in logged[-1]
