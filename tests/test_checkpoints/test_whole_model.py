"""Published checkpoints in whole models, loaded by mmengine."""

import pytest
import torch
from mmengine.model import BaseModule
from mmengine.runner.checkpoint import load_checkpoint, load_state_dict
from torch import nn

from mmattn.backbones import BOATSwin
from mmattn.checkpoints import convert
from mmattn.checkpoints.whole_model import check_fits
from mmattn.cli.weights import check_weights
from mmattn.errors import UsageError

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


class Whole(BaseModule):
    """A model that mmengine initializes as a whole."""

    def __init__(self, backbone, path, **more):
        cfg = dict(type='Pretrained', checkpoint=str(path), **more)
        super().__init__(init_cfg=cfg)
        self.backbone = backbone
        self.neck = nn.Linear(2, 2)


def saved(tmp_path, state):
    path = tmp_path / 'a.pth'
    torch.save(dict(state_dict=state), path)
    return path


def test_an_init_cfg_of_which_nothing_fits(tmp_path):
    state = {'conv': torch.ones(4), 'neck.weight': torch.ones(3, 3)}
    path = saved(tmp_path, state | {'fc': torch.ones(1)})
    model = Whole(BOATSwin('nano'), path)
    total = len(model.state_dict())
    message = (
        rf'{path} does not fit Whole: 0 of {total} tensors fit, 1 have other '
        rf'shapes \(neck.weight: \[3, 3\] instead of \[2, 2\]\), {total - 1} '
        r'are missing \(.*\), 2 are unexpected \(conv, fc\).*init_cfg'
    )
    with pytest.raises(ValueError, match=message):
        model.init_weights()


@pytest.mark.parametrize('prefix', [None, 'net.'])
def test_an_init_cfg_of_which_something_fits(tmp_path, prefix):
    state = {'neck.weight': torch.eye(2), 'x': torch.ones(1)}
    path = saved(tmp_path, {(prefix or '') + k: x for k, x in state.items()})
    model = Whole(BOATSwin('nano'), path, prefix=prefix)
    model.init_weights()
    assert torch.equal(model.neck.weight, torch.eye(2))
    path = saved(tmp_path, {(prefix or '') + 'x': torch.ones(1)})
    with pytest.raises(ValueError, match='0 of .* fit'):
        Whole(BOATSwin('nano'), path, prefix=prefix).init_weights()


def test_an_init_cfg_of_a_detector_that_holds_a_backbone_deeper(tmp_path):
    tiny = {
        f'backbone.{k}': x for k, x in BOATSwin('tiny').state_dict().items()
    }
    path = saved(tmp_path, tiny)
    with pytest.raises(ValueError, match="0 of .*BOATSwin arch='tiny'"):
        Whole(Model(), path).init_weights()


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_an_init_cfg_with_nonfinite_weights(tmp_path, value):
    state = {'neck.weight': torch.eye(2), 'neck.bias': torch.ones(2)}
    state['neck.bias'][1] = value
    path = saved(tmp_path, state)
    message = rf'{path} does not fit Whole: neck.bias has NaN or infinite'
    with pytest.raises(ValueError, match=message):
        Whole(BOATSwin('nano'), path).init_weights()


@pytest.mark.parametrize('dtype', [torch.int64, torch.bool, torch.complex64])
def test_an_init_cfg_whose_weights_would_be_cast(tmp_path, dtype):
    state = {'neck.weight': torch.eye(2), 'neck.bias': torch.ones(2)}
    path = saved(tmp_path, state | {'neck.bias': torch.ones(2, dtype=dtype)})
    message = rf'{path} does not fit Whole: .*\(neck.bias\); save .*floating'
    with pytest.raises(ValueError, match=message):
        Whole(BOATSwin('nano'), path).init_weights()


@pytest.mark.parametrize('kind', [IndexError, RuntimeError, ValueError])
def test_a_model_that_cannot_load_the_tensors(kind):
    def fail(*args):
        raise kind('too few')

    model = nn.Linear(2, 2)
    model._register_load_state_dict_pre_hook(fail)
    message = r'a.pth does not fit Linear: the model cannot .*\(too few\)'
    with pytest.raises(ValueError, match=message):
        check_fits(model, model.state_dict(), 'a.pth')
    with pytest.raises(UsageError, match=message):
        check_weights(model, model.state_dict(), 'a.pth', whole=True)


def test_an_init_cfg_of_a_published_backbone(tmp_path):
    state = BOATSwin('nano').state_dict()
    state = {k: torch.rand_like(x) for k, x in state.items()}
    model = Whole(BOATSwin('nano'), saved(tmp_path, state))
    model.init_weights()
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_models_without_our_modules_are_left_alone(tmp_path):
    state = {'x': torch.ones(1), 'neck.bias': torch.tensor([1, float('nan')])}
    path = saved(tmp_path, state)
    Whole(nn.Linear(2, 2), path).init_weights()
