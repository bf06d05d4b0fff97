import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmattn.backbones import PerspectiveEncoder
from mmattn.checkpoints import convert, detect_source, load_file

ROOT = Path(__file__).parents[2]
SYNAPSE = (
    'configs/perspective_unet/perspective-unet_1xb12-600e_synapse-224x224.py'
)


def numbered(case):
    """Names and shapes of a case, with one value per tensor."""
    return {
        name: torch.tensor(float(i)).expand(shape)
        for i, (name, shape, _) in enumerate(case['meta']['state_dict'])
    }


@pytest.fixture
def official(golden_case):
    """The published encoder."""
    return numbered(golden_case('perspective_encoder'))


@pytest.fixture
def published(official, golden_case):
    """The whole published network, as its trainer saves it."""
    state = {f'encoder.{name}': value for name, value in official.items()}
    return state | numbered(golden_case('perspective_decoder'))


def segmentor(path=SYNAPSE):
    """A model of one of our configs, without values."""
    pytest.importorskip('mmseg')
    from mmengine.config import Config
    from mmengine.registry import MODELS, DefaultScope

    cfg = Config.fromfile(ROOT / path)
    with DefaultScope.overwrite_default_scope('mmseg'), torch.device('meta'):
        return MODELS.build(cfg.model)


@pytest.mark.parametrize('prefix', ['', 'encoder.', 'backbone.'])
def test_the_published_checkpoint(official, prefix):
    state = {prefix + name: value for name, value in official.items()}
    assert detect_source(state) == 'perspective_unet'
    converted = convert(state)
    assert converted.family == 'PerspectiveEncoder'
    assert converted.arch == 'base'
    assert converted.unused == [] and converted.added == []
    with torch.device('meta'):
        want = PerspectiveEncoder('base').state_dict()
    got = converted.backbone
    assert {k: v.shape for k, v in got.items()} == {
        k: v.shape for k, v in want.items()
    }


def test_joint_projections_are_split(official):
    name = 'scale_integrator.transformer.layers.2.self_attn.in_proj_bias'
    official[name] = torch.arange(768.0)
    backbone = convert(official).backbone
    for part, start in zip('qkv', (0, 256, 512)):
        bias = backbone[f'integrator.layers.2.attn.{part}_proj.bias']
        assert torch.equal(bias, torch.arange(start, start + 256.0))


def test_a_segmentor_loads_the_whole_checkpoint(published):
    converted = convert(published)
    assert converted.unused == converted.added == []
    assert converted.head_name == 'decode_head'
    whole = converted.whole()
    numbers = sum(p.numel() for p in segmentor().parameters())
    assert numbers == 112_659_849
    model = segmentor()
    model.load_state_dict(whole, strict=True, assign=True)
    pairs = {
        'decoder.first_block.conv2.conv.weight': 'deepest.1.conv.weight',
        'decoder.blocks.1.conv1.bn.running_var': 'joins.1.0.bn.running_var',
        'decoder.last_block.conv1.bn.bias': 'finest.0.bn.bias',
        'segmentation_head.0.bias': 'conv_seg.bias',
    }
    for theirs, ours in pairs.items():
        assert converted.head[ours] is published[theirs]
    used = {id(v) for v in converted.head.values()}
    assert used == {
        id(value)
        for name, value in published.items()
        if not name.startswith('encoder.')
    }


@pytest.mark.slow  # writes half a gigabyte
def test_the_command_converts_the_whole_file(published, tmp_path):
    source, out = tmp_path / 'published.pth', tmp_path / 'out.pth'
    torch.save({f'module.{k}': v for k, v in published.items()}, source)
    done = subprocess.run(
        [sys.executable, ROOT / 'tools/convert_checkpoint.py', source, out],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "mmattn.PerspectiveEncoder, arch='base', " in done.stdout
    assert 'unused    0\n' in done.stdout
    model = segmentor()
    model.load_state_dict(load_file(out), strict=True, assign=True)
    weight = model.decode_head.conv_seg.weight
    assert (weight == published['segmentation_head.0.weight']).all()


def test_other_tensors_are_unused(published):
    others = [
        'decoder.up.weight',
        'decoder.first_block.conv3.conv.weight',
        'decoder.blocks.0.conv0.bn.bias',
        'decoder.last_block.conv1.act.weight',
        'segmentation_head.1.weight',
    ]
    state = published | {name: torch.zeros(1) for name in others}
    assert convert(state).unused == others


@pytest.mark.parametrize('part', ['Encoder2', 'scale_integrator'])
def test_ablations_are_not_supported(published, part):
    state = {k: v for k, v in published.items() if f'.{part}.' not in k}
    with pytest.raises(ValueError, match=part):
        convert(state)


def test_unknown_names(official):
    official['Encoder2.strange.0.weight'] = torch.zeros(1)
    with pytest.raises(ValueError, match='Encoder2.strange.0.weight'):
        convert(official)


def test_our_checkpoint_is_detected():
    model = PerspectiveEncoder('nano')
    converted = convert(model.state_dict())
    assert converted.source == 'mmattn'
    assert (converted.family, converted.arch) == ('PerspectiveEncoder', 'nano')
    PerspectiveEncoder(converted.arch).load_state_dict(converted.backbone)


def test_pretrained_by_config(tmp_path):
    saved = PerspectiveEncoder('nano')
    torch.save(saved.state_dict(), tmp_path / 'encoder.pth')
    init = dict(type='Pretrained', checkpoint=str(tmp_path / 'encoder.pth'))
    model = PerspectiveEncoder('nano', init_cfg=init)
    model.init_weights()
    want = saved.state_dict()
    assert all(torch.equal(v, want[k]) for k, v in model.state_dict().items())
