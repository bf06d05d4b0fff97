"""``init_cfg=dict(type='Pretrained', ...)`` of backbones."""

import pytest
import torch
import torch.nn as nn
from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger
from mmengine.model import BaseModel, BaseModule
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner

from mmattn.backbones import AttentionPyramid, BOATSwin
from mmattn.checkpoints import BackbonePretrained, convert, load_file
from mmattn.registry import WEIGHT_INITIALIZERS
from mmattn.zoo import find_model

WINDOWS_OF_8 = (
    dict(type='mmattn.WindowAttention', window_size=8),
    dict(type='mmattn.WindowAttention', window_size=8, with_shift=True),
)
TO_OFFICIAL = {
    'stem.': 'patch_embed.',
    'norm3.': 'norm.',
    '.feature_norm.': '.norm4.',
    '.feature_attn.lepe.': '.attnC.get_v.',
    '.feature_attn.': '.attnC.',
}


def to_official(state):
    """Undo the conversion of a BOAT-Swin, written another way."""
    result = {}
    for name, value in state.items():
        if name.startswith(('norm0', 'norm1', 'norm2')):
            continue
        for ours, theirs in TO_OFFICIAL.items():
            name = name.replace(ours, theirs)
        if '.downsample.' in name:
            stage = int(name.split('.')[1])
            name = name.replace(f'stages.{stage}.', f'layers.{stage - 1}.')
        result[name.replace('stages.', 'layers.')] = value
    return result


def randomised(model):
    for param in model.parameters():
        nn.init.normal_(param, std=0.1)
    return model.state_dict()


@pytest.fixture
def weights():
    return randomised(BOATSwin(arch='nano'))


def loaded(path, family=BOATSwin, arch='nano', more=None, **kwargs):
    cfg = dict(type='Pretrained', checkpoint=str(path), **(more or {}))
    model = family(arch=arch, init_cfg=cfg, **kwargs)
    model.init_weights()
    return model


def check_equal(model, weights):
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name]), name


def saved(path, content):
    torch.save(content, path)
    return path


@pytest.fixture
def log(monkeypatch):
    """Messages that go to mmengine's current logger."""
    lines = []
    logger = MMLogger.get_instance('test_initializer')
    monkeypatch.setattr(logger, 'handle', lambda r: lines.append(r.msg))
    return lines


def test_it_is_found_by_its_name():
    found = WEIGHT_INITIALIZERS.get('mmattn.BackbonePretrained')
    assert found is BackbonePretrained


@pytest.mark.parametrize('prefix', ['', 'backbone.', 'module.backbone.'])
def test_our_own_files(tmp_path, weights, prefix, log):
    state = {prefix + name: value for name, value in weights.items()}
    if prefix:
        outer = prefix.removesuffix('backbone.')
        state |= {f'{outer}head.fc.weight': torch.zeros(3, 192)}
    path = saved(tmp_path / 'a.pth', dict(state_dict=state))
    model = loaded(path)
    check_equal(model, weights)
    count = len(weights)
    rest = '1 (head.fc.weight)' if prefix else '0'
    assert log[-1] == (
        f'BOATSwin loaded {count} of {count} tensors from {path} (format '
        f'mmattn), resized 0, newly initialized 0, missing 0, unused {rest}'
    )


def test_a_config_of_mmengine(tmp_path, weights):
    path = saved(tmp_path / 'a.pth', weights)
    cfg = ConfigDict(type='Pretrained', checkpoint=str(path))
    model = BOATSwin(arch='nano', init_cfg=cfg)
    model.init_weights()
    check_equal(model, weights)


def test_pretrained_weights_come_last_and_once(tmp_path, weights):
    path = saved(tmp_path / 'a.pth', weights)
    cfgs = [
        dict(type='Pretrained', checkpoint=str(path)),
        dict(type='Xavier', layer='Linear'),
    ]
    for init_cfg in (cfgs, cfgs[0]):
        model = BOATSwin(arch='nano', init_cfg=init_cfg)
        model.init_weights()
        check_equal(model, weights)
        trained = randomised(model)
        model.init_weights()
        check_equal(model, trained)


def test_no_parameter_is_logged_as_unchanged(tmp_path, weights, log):
    loaded(saved(tmp_path / 'a.pth', weights))
    assert not any('before and after' in str(line) for line in log)


def test_an_official_classification_file(tmp_path, weights, log):
    state = to_official(weights)
    state['head.weight'] = torch.zeros(1000, 192)
    state['head.bias'] = torch.zeros(1000)
    path = saved(tmp_path / 'a.pth', dict(model=state))
    model = loaded(path)
    fresh = {
        f'norm{i}.{leaf}': torch.full((24 * 2**i,), value)
        for i in range(3)
        for leaf, value in (('weight', 1.0), ('bias', 0.0))
    }
    check_equal(model, weights | fresh)
    assert f'loaded {len(weights) - 6} of {len(weights)} tensors' in log[-1]
    assert 'format boat_swin' in log[-1]
    assert 'initialized 6 (norm0.weight, norm0.bias, norm1.weight, ' in log[-1]


def test_a_backbone_with_fewer_stages(tmp_path, weights):
    path = saved(tmp_path / 'a.pth', to_official(weights))
    model = loaded(path, out_indices=(1,))
    names = set(model.state_dict())
    assert not any(name.startswith('stages.2') for name in names)
    check_equal(
        model,
        weights
        | {'norm1.weight': torch.ones(48), 'norm1.bias': torch.zeros(48)},
    )


def test_inside_a_larger_model(tmp_path, weights):
    path = saved(tmp_path / 'a.pth', weights)

    class Detector(BaseModule):
        def __init__(self):
            super().__init__()
            cfg = dict(type='Pretrained', checkpoint=str(path))
            self.backbone = BOATSwin(arch='nano', init_cfg=cfg)

    detector = Detector()
    detector.init_weights()
    check_equal(detector.backbone, weights)


def test_another_prefix(tmp_path, weights):
    state = {f'teacher.net.{name}': v for name, v in weights.items()}
    path = saved(tmp_path / 'a.pth', state | {'student': torch.zeros(1)})
    check_equal(loaded(path, more=dict(prefix='teacher.net.')), weights)
    with pytest.raises(ValueError, match=r"'teacher\.body\.'.*teacher\.net"):
        loaded(path, more=dict(prefix='teacher.body.'))


def test_an_unknown_prefix_is_proposed(tmp_path, weights):
    state = {f'net.{name}': value for name, value in weights.items()}
    path = saved(tmp_path / 'a.pth', state)
    with pytest.raises(ValueError, match="prefix='net.' in init_cfg"):
        loaded(path)
    check_equal(loaded(path, more=dict(prefix='net')), weights)


def test_the_usual_prefix_may_be_given(tmp_path, weights):
    state = {f'backbone.{name}': v for name, v in weights.items()}
    path = saved(tmp_path / 'a.pth', state)
    check_equal(loaded(path, more=dict(prefix='backbone.')), weights)


def test_tables_are_resized_to_a_wider_window(tmp_path, weights, log):
    name = 'stages.1.blocks.1.attn.relative_position_bias_table'
    # Head 0 depends only on rows, head 1 only on columns.
    rows, columns = torch.meshgrid(
        torch.linspace(-1, 1, 13), torch.linspace(-2, 2, 13), indexing='ij'
    )
    weights[name] = torch.stack((rows, columns), -1).reshape(169, 2)
    path = saved(tmp_path / 'a.pth', to_official(weights))
    model = loaded(path, window_size=8)
    table = model.state_dict()[name]
    assert table.shape == (225, 2)
    table = table.reshape(15, 15, 2)
    ends = torch.tensor([-1.0, 0.0, 1.0])
    for column in range(15):
        assert torch.allclose(table[[0, 7, 14], column, 0], ends, atol=1e-6)
        assert torch.allclose(
            table[column, [0, 7, 14], 1], 2 * ends, atol=1e-6
        )
    assert 'resized 8, ' in log[-1]
    rest = {n: v for n, v in model.state_dict().items() if 'table' not in n}
    for key, value in rest.items():
        if key[:5] not in ('norm0', 'norm1', 'norm2'):
            assert torch.equal(value, weights[key]), key
    assert model(torch.zeros(1, 3, 64, 64))[3].isfinite().all()


def test_a_pyramid_with_another_window(tmp_path, log):
    weights = randomised(AttentionPyramid(arch='swin-nano'))
    path = saved(tmp_path / 'a.pth', weights)
    arch = AttentionPyramid.arch_zoo['swin-nano']
    arch = dict(arch, attentions=(WINDOWS_OF_8,) * 4)
    model = loaded(path, AttentionPyramid, arch)
    assert 'resized 8, ' in log[-1]
    assert convert(model.state_dict()).arch == arch


def test_another_arch_changes_nothing(tmp_path, weights):
    path = saved(tmp_path / 'a.pth', weights)
    model = BOATSwin(
        arch=dict(embed_dims=24, depths=(2, 2, 3, 2), num_heads=(1, 2, 4, 8)),
        init_cfg=dict(type='Pretrained', checkpoint=str(path)),
    )
    before = {k: v.clone() for k, v in model.state_dict().items()}
    counts = f'{len(weights)} of {len(weights) + 13} .*13 are missing'
    with pytest.raises(ValueError, match=counts):
        model.init_weights()
    check_equal(model, before)


def test_other_shapes_change_nothing(tmp_path, weights):
    path = saved(tmp_path / 'a.pth', weights)
    for strict in (True, False):
        model = BOATSwin(arch='nano', in_channels=1)
        before = {k: v.clone() for k, v in model.state_dict().items()}
        with pytest.raises(ValueError, match=r'stem\.proj\.weight'):
            BackbonePretrained(str(path), strict=strict, adapt_channels=False)(
                model
            )
        check_equal(model, before)


def test_integers_are_not_cast(tmp_path, weights):
    weights['stem.proj.bias'] = weights['stem.proj.bias'].long()
    path = saved(tmp_path / 'a.pth', weights)
    with pytest.raises(ValueError, match='stem.proj.bias.*floating-point'):
        loaded(path, more=dict(strict=False))


def test_swin_weights_in_a_boat_swin(tmp_path, log):
    swin = randomised(AttentionPyramid(arch='swin-nano'))
    path = saved(tmp_path / 'a.pth', swin)
    with pytest.raises(ValueError, match='24 are missing .*strict=False'):
        loaded(path)
    with pytest.raises(ValueError, match='min_loaded'):
        loaded(path, more=dict(strict=False))
    model = loaded(path, more=dict(strict=False, min_loaded=0.75))
    state = model.state_dict()
    for name, value in swin.items():
        assert torch.equal(state[name], value), name
    assert 'missing 24 (stages.0.blocks.1.feature_norm.weight, ' in log[-1]


def test_boat_swin_weights_in_a_swin(tmp_path, weights, log):
    path = saved(tmp_path / 'a.pth', weights)
    with pytest.raises(ValueError, match='24 are unexpected'):
        loaded(path, AttentionPyramid, 'swin-nano')
    loaded(path, AttentionPyramid, 'swin-nano', dict(strict=False))
    assert 'unused 24 (stages.0.blocks.1.feature_norm.weight' in log[-1]


@pytest.mark.usefixtures('stubs_supported')
@pytest.mark.parametrize(
    'name',
    [
        'mask-rcnn_boat-swin-nano_fpn_1xb8-8e_digits',
        'upernet_boat-swin-nano_1xb8-8e_digits',
    ],
)
def test_a_classifier_starts_a_model_of_a_codebase(
    tmp_path, weights, log, name
):
    cfg = Config.fromfile(find_model(name).config)
    state = to_official(weights)
    state |= {'head.weight': torch.zeros(9, 192), 'head.bias': torch.zeros(9)}
    path = saved(tmp_path / 'in1k.pth', dict(model=state))

    def start():
        cfg.model.backbone.init_cfg = dict(
            type='Pretrained', checkpoint=str(path), strict=False
        )
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            model = MODELS.build(cfg.model)
            model.init_weights()
        return model

    start()
    (line,) = [x for x in log if str(x).startswith('BOATSwin loaded')]
    count = len(weights)
    assert line.startswith(f'BOATSwin loaded {count - 6} of {count} tensors')
    assert line.endswith(
        'resized 0, newly initialized 6 (norm0.weight, norm0.bias, '
        'norm1.weight, norm1.bias, norm2.weight, norm2.bias), missing 0, '
        'unused 2 (head.fc.weight, head.fc.bias)'
    )
    # One tensor in twenty may be missing, not more.
    names = [name for name in state if '.mlp.' in name]
    allowed = int(0.05 * (count - 6))
    for lost in (allowed, allowed + 1):
        fewer = {k: v for k, v in state.items() if k not in names[:lost]}
        saved(path, dict(model=fewer))
        if lost == allowed:
            start()
            continue
        with pytest.raises(ValueError, match=f'in1k.*{count - 6 - lost} of '):
            start()


def test_a_checkpoint_without_any_matching_tensor(tmp_path):
    state = {
        'stem.conv.weight': torch.zeros(1),
        'stages.0.blocks.0.mixer.weight': torch.zeros(1),
    }
    path = saved(tmp_path / 'a.pth', state)
    with pytest.raises(ValueError, match='0 of .* family'):
        loaded(path, more=dict(strict=False))


def test_another_model(tmp_path):
    path = saved(tmp_path / 'a.pth', {'fc.weight': torch.zeros(1)})
    with pytest.raises(ValueError, match='format'):
        loaded(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='no.pth'):
        loaded(tmp_path / 'no.pth')


class Classifier(BaseModel):
    """The least that mmengine's Runner trains."""

    def __init__(self):
        super().__init__()
        self.backbone = BOATSwin(arch='nano', out_indices=(3,))
        self.fc = nn.Linear(192, 2)

    def forward(self, inputs, labels, mode):
        scores = self.fc(self.backbone(inputs)[-1].mean((2, 3)))
        return dict(loss=nn.functional.cross_entropy(scores, labels))


@pytest.mark.usefixtures('stubs_supported')
def test_a_checkpoint_of_the_runner(tmp_path):
    data = [dict(inputs=torch.randn(3, 32, 32), labels=i % 2) for i in (0, 1)]
    runner = Runner(
        Classifier(),
        work_dir=str(tmp_path),
        train_dataloader=torch.utils.data.DataLoader(data, batch_size=2),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=3),
            dict(type='OneCycleLR', eta_max=0.1, total_steps=10),
        ],
        default_scope='mmengine',
        experiment_name='test_a_checkpoint_of_the_runner',
    )
    runner.train()
    path = tmp_path / 'epoch_1.pth'
    # torch alone cannot read it: it holds more than tensors.
    with pytest.raises(Exception, match='Weights only load failed'):
        torch.load(path, weights_only=True)
    state = load_file(path)
    trained = runner.model.state_dict()
    assert state.keys() == trained.keys()
    model = loaded(path, out_indices=(3,))
    check_equal(model, runner.model.backbone.state_dict())
