"""Optimized copies of whole models beside the models."""

import copy
import io
import logging
import os
import subprocess
import sys

import pytest
import torch
from mmcv.cnn import ConvModule
from torch import nn
from torch.nn.utils import parametrize, prune

import mmattn.backbones  # noqa: F401
from mmattn import optimize_for_inference
from mmattn.attentions import feature_space_attention
from mmattn.inference import optimize
from mmattn.inference.modules import (
    Fused,
    FusedLinear,
    FusedMLP,
)
from mmattn.layers import MLP, AttentionBlock
from mmattn.ops import _native
from mmattn.registry import MODELS

needs_kernels = pytest.mark.skipif(
    not _native.is_available(), reason='no C++ compiler'
)
BACKBONES = sorted(
    name
    for name, cls in MODELS.module_dict.items()
    if hasattr(cls, 'arch_zoo')
)
ARCHS = [
    (name, arch)
    for name in BACKBONES
    for arch in MODELS.get(name).arch_zoo
    if arch.endswith('nano')
]
CLOSE = {torch.float64: 1e-12, torch.float32: 1e-5}


def build(name, arch, **kwargs):
    """A backbone whose norms have statistics that matter."""
    torch.manual_seed(0)
    model = MODELS.get(name)(arch, **kwargs)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
            for x in (*module.parameters(), *module.buffers()):
                if x.is_floating_point():
                    nn.init.uniform_(x, 0.5, 2)
    return model.eval()


@pytest.fixture
def messages(monkeypatch):
    """What is logged, as pairs of level and text."""
    logged = []
    monkeypatch.setattr(
        optimize,
        'print_log',
        lambda text, logger, level: logged.append((level, text)),
    )
    return logged


def swin():
    return build('AttentionPyramid', 'swin-nano')


@pytest.fixture
def clusters(monkeypatch):
    """Replay the clusters of the first model in the second one.

    Rounding alone moves tokens between clusters.
    """
    balanced_clusters = feature_space_attention.balanced_clusters
    recorded = []

    def replay(q, *args):
        assert q.shape[-2] == recorded[0].shape[-1]
        return recorded.pop(0)

    class Clusters:
        def record(self):
            def record(*args):
                recorded.append(balanced_clusters(*args))
                return recorded[-1]

            self._patch(record)

        def replay(self):
            self._patch(replay)

        def _patch(self, function):
            monkeypatch.setattr(
                feature_space_attention, 'balanced_clusters', function
            )

        def are_used_up(self):
            return not recorded

    return Clusters()


@needs_kernels
@pytest.mark.parametrize('dtype', CLOSE)
@pytest.mark.parametrize('name, arch', ARCHS)
def test_equals_the_model(name, arch, dtype, clusters):
    model = build(name, arch).to(dtype)
    optimized = optimize_for_inference(model)
    for batch, height, width in ((2, 128, 96), (1, 61, 90), (3, 37, 101)):
        x = torch.randn(batch, 3, height, width, dtype=dtype)
        with torch.no_grad():
            clusters.record()
            want = model(x)
            clusters.replay()
            got = optimized(x)
        assert clusters.are_used_up()
        for a, b in zip(got, want, strict=True):
            close = CLOSE[dtype] * max(1, b.abs().max().item())
            torch.testing.assert_close(a, b, rtol=0, atol=close)


@needs_kernels
def test_layer_scale_is_kept():
    arch = dict(
        MODELS.get('SMT').arch_zoo['nano'], layer_scale=0.3, stem_kernel=7
    )
    model = build('SMT', arch).double()
    x = torch.randn(1, 3, 64, 80).double()
    with torch.no_grad():
        for a, b in zip(optimize_for_inference(model)(x), model(x)):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


def transposed(x):
    """The same values with other strides."""
    return x.transpose(0, -1).contiguous().transpose(0, -1)


@needs_kernels
@pytest.mark.parametrize('name, arch', ARCHS)
def test_parameters_in_any_memory_layout(name, arch):
    model = build(name, arch).double()
    x = torch.randn(1, 3, 64, 96).double()
    with torch.no_grad():
        want = model(x)
        fast = optimize_for_inference(model)
        state = {key: transposed(v) for key, v in model.state_dict().items()}
        model.load_state_dict(state, assign=True)
        later = {key: transposed(v) for key, v in fast.state_dict().items()}
        fast.load_state_dict(later, assign=True)
        for copy_ in (fast, optimize_for_inference(model)):
            for a, b in zip(copy_(x), want, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-11)


class Foreign(nn.Module):
    """A user's attention, which calls the parts of its children."""

    def __init__(self):
        super().__init__()
        self.seq = nn.Sequential(nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16))
        self.linear = nn.Linear(16, 16)
        nn.init.uniform_(self.seq[1].running_mean, 1, 2)

    def forward(self, x):
        assert type(self.linear) is nn.Linear
        x = self.seq[0](x.permute(0, 3, 1, 2)).relu()
        return self.linear(self.seq[1](x).permute(0, 2, 3, 1))


@needs_kernels
def test_modules_of_users_inside_ours_do_not_change():
    model = AttentionBlock(Foreign(), 16).double().eval()
    shared = nn.ModuleDict({'theirs': nn.Linear(64, 16), 'ours': model})
    model.mlp.fc2 = shared['theirs'].double()
    x = torch.randn(1, 24, 24, 16).double()
    fast = optimize_for_inference(shared)
    assert type(fast['theirs']) is nn.Linear
    assert fast.optimized == {'layer_norm': 2, 'mlp': 1}
    with torch.no_grad():
        torch.testing.assert_close(fast['ours'](x), model(x))


@needs_kernels
def test_efficient_conv_bn_eval_is_not_folded():
    model = build('PerspectiveEncoder', 'nano').double()
    for module in model.modules():
        if isinstance(module, ConvModule):
            module.turn_on_efficient_conv_bn_eval()
    x = torch.randn(1, 3, 64, 64).double()
    fast = optimize_for_inference(model).eval()
    with torch.no_grad():
        for a, b in zip(fast(x), model(x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@needs_kernels
def test_every_module_of_the_copy_is_in_evaluation_mode():
    fast = optimize_for_inference(build('SMT', 'nano').train())
    assert not any(module.training for module in fast.modules())


@needs_kernels
def test_takes_another_default_device():
    model = build('SMT', 'nano')
    fast = optimize_for_inference(model)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad(), torch.device('meta'):
        for a, b in zip(fast(x), model(x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@needs_kernels
def test_takes_an_empty_batch():
    model = swin()
    x = torch.rand(0, 3, 64, 64)
    shapes = [y.shape for y in optimize_for_inference(model)(x)]
    assert shapes == [y.shape for y in model(x)]


@needs_kernels
def test_counts_what_it_replaced(messages):
    model = build('SMT', 'nano')  # depths 2, 2, 2, 2; attention: 3 of them
    optimized = optimize_for_inference(model)
    blocks = 8
    assert optimized.optimized == dict(
        batch_norm=1,  # of the stem
        modulation=5,
        conv_mlp=blocks,
        linear=3 * 5 + 2 * 3,
        layer_norm=2 * blocks + 1 + 3 + 4,
        self_attention=3,
    )
    ((level, text),) = messages
    assert level == logging.INFO
    assert '5 modulation' in text and '8 conv_mlp' in text
    kinds = [m.kind for m in optimized.modules() if hasattr(m, 'kind')]
    assert sorted(set(kinds)) == sorted(
        set(optimized.optimized) - {'batch_norm'}
    )
    assert kinds.count('linear') == optimized.optimized['linear']


@needs_kernels
def test_leaves_the_model_as_it_is():
    model = build('SMT', 'nano').train()
    model.norm0.register_forward_hook(lambda *args: None)
    state = copy.deepcopy(model.state_dict())
    types = {key: type(m) for key, m in model.named_modules()}
    optimized = optimize_for_inference(model)
    assert {key: type(m) for key, m in model.named_modules()} == types
    assert all(m.training for m in model.modules())
    assert all(p.requires_grad for p in model.parameters())
    assert len(model.norm0._forward_hooks) == 1
    for key, x in model.state_dict().items():
        assert torch.equal(x, state[key])
    theirs = {x.data_ptr() for x in optimized.state_dict().values()}
    assert not theirs & {x.data_ptr() for x in model.state_dict().values()}


@needs_kernels
def test_never_asks_for_gradients():
    optimized = optimize_for_inference(swin())
    assert not any(p.requires_grad for p in optimized.parameters())
    assert not any(
        y.requires_grad for y in optimized(torch.rand(1, 3, 64, 64))
    )


@needs_kernels
def test_refuses_training_as_a_whole():
    optimized = optimize_for_inference(swin())
    assert optimized.eval() is optimized
    for model in (optimized, copy.deepcopy(optimized)):
        with pytest.raises(RuntimeError, match='optimize_for_inference'):
            model.train()
        assert not any(m.training for m in model.modules())
    with pytest.raises(RuntimeError, match='optimize_for_inference'):
        optimized.stages[0].blocks[0].train()


@needs_kernels
def test_survives_copies_pickles_and_state_dicts():
    optimized = optimize_for_inference(build('SMT', 'nano'))
    x = torch.rand(1, 3, 64, 64)
    want = optimized(x)
    file = io.BytesIO()
    torch.save(optimized, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert loaded.optimized == optimized.optimized
    twin = copy.deepcopy(optimized)
    assert twin.train.args[0] is twin and loaded.train.args[0] is loaded
    other = optimize_for_inference(build('SMT', 'nano'))
    for parameter in other.parameters():
        parameter.zero_()
    other.load_state_dict(optimized.state_dict())
    for model in (loaded, twin, other):
        assert all(map(torch.equal, model(x), want))


@needs_kernels
def test_the_state_dict_of_the_model_itself_is_an_error():
    model = swin()
    with pytest.raises(RuntimeError, match='mlp.weight1'):
        optimize_for_inference(model).load_state_dict(model.state_dict())


class Halved(nn.Module):
    def forward(self, x):
        return 0.5 * x


class Adapter(nn.Module):
    """Adds a low-rank product to a linear layer, as LoRA does."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, 2, bias=False)
        self.up = nn.Linear(2, base.out_features, bias=False)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


def adapt(mlp):
    mlp.fc1 = Adapter(mlp.fc1).double()


def halve(mlp):
    parametrize.register_parametrization(mlp.fc1, 'weight', Halved())


def weaken(mlp):
    mlp.act = nn.GELU(approximate='tanh')


ATTACHMENTS = {
    'hook': lambda mlp: mlp.fc1.register_forward_hook(lambda m, x, y: 2 * y),
    'hook of the whole': lambda mlp: mlp.register_forward_pre_hook(
        lambda m, x: (2 * x[0],)
    ),
    'pruning': lambda mlp: prune.l1_unstructured(mlp.fc2, 'weight', 0.5),
    'adapter': adapt,
    'parametrization': halve,
    'tanh': weaken,
}


@needs_kernels
@pytest.mark.parametrize('attach', ATTACHMENTS.values(), ids=ATTACHMENTS)
def test_leaves_what_something_is_attached_to(attach):
    model = swin().double()
    mlps = [m for m in model.modules() if type(m) is MLP]
    plain = optimize_for_inference(model)
    attach(mlps[0])
    optimized = optimize_for_inference(model)
    assert type(optimized.stages[0].blocks[0].mlp) is MLP
    assert optimized.optimized['mlp'] == len(mlps) - 1
    x = torch.rand(2, 3, 64, 96).double()
    with torch.no_grad():
        want, got, before = model(x), optimized(x), plain(x)
    for a, b, c in zip(got, want, before):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
        assert not torch.allclose(a, c)


@needs_kernels
def test_replaces_modules_of_mmattn_alone():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = swin()
            self.head = nn.Sequential(
                nn.Conv2d(192, 8, 1), nn.BatchNorm2d(8), nn.Linear(8, 8)
            )
            self.encoder = nn.Sequential(nn.Linear(8, 8), MLP(8, 16))

    optimized = optimize_for_inference(Model())
    assert [type(m) for m in optimized.head] == [
        nn.Conv2d,
        nn.BatchNorm2d,
        nn.Linear,
    ]
    assert [type(m) for m in optimized.encoder] == [nn.Linear, FusedMLP]


@needs_kernels
def test_modules_in_two_places_stay_one():
    mlp = MLP(8, 16)
    model = nn.ModuleList([mlp, mlp, nn.ModuleList([mlp])])
    optimized = optimize_for_inference(model)
    assert optimized[0] is optimized[1] is optimized[2][0]
    assert optimized.optimized['mlp'] == 1


@needs_kernels
def test_a_module_alone_is_a_model_too():
    assert type(optimize_for_inference(MLP(8, 16))) is FusedMLP
    block = AttentionBlock(nn.Linear(8, 8), 8)
    assert type(optimize_for_inference(block).attn) is FusedLinear


@needs_kernels
def test_warns_if_there_is_nothing_to_replace(messages):
    assert optimize_for_inference(nn.Linear(8, 8)).optimized == {}
    ((level, text),) = messages
    assert level == logging.WARNING and 'nothing' in text


DETECTORS = {
    'mmdet': 'smt/mask-rcnn_smt-nano_fpn_1xb8-8e_digits.py',
    'mmseg': 'smt/upernet_smt-nano_1xb8-8e_digits.py',
}


@needs_kernels
@pytest.mark.parametrize('codebase, config', DETECTORS.items())
def test_leaves_necks_and_heads_of_other_codebases(codebase, config):
    pytest.importorskip(codebase)
    from mmengine.config import Config
    from mmengine.registry import MODELS as ROOT
    from mmengine.registry import DefaultScope

    cfg = Config.fromfile(f'configs/{config}')
    with DefaultScope.overwrite_default_scope(codebase):
        model = ROOT.build(cfg.model).double().eval()
    optimized = optimize_for_inference(model)
    for name, module in optimized.named_modules():
        own = isinstance(module, Fused)
        assert not own or name.startswith('backbone.')
    assert optimized.optimized['conv_mlp'] == 8
    x = torch.randn(1, 3, 96, 128).double()
    with torch.no_grad():
        want, got = model.extract_feat(x), optimized.extract_feat(x)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


def test_without_kernels_nothing_is_replaced():
    code = (
        'import torch\n'
        'from mmattn import optimize_for_inference\n'
        'from mmattn.layers import MLP\n'
        'mlp = MLP(8, 16)\n'
        'optimized = optimize_for_inference(mlp)\n'
        'assert optimized is not mlp and type(optimized) is MLP\n'
        'assert optimized.optimized == {}\n'
        'x = torch.rand(600, 8)\n'
        'assert torch.equal(optimized(x), mlp(x))\n'
        'try:\n'
        '    optimized.train()\n'
        'except RuntimeError:\n'
        "    print('refused')\n"
    )
    done = subprocess.run(
        [sys.executable, '-c', code],
        env={**os.environ, 'MMATTN_CPU_KERNELS': '0'},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert 'refused' in done.stdout
    output = done.stdout + done.stderr
    assert output.count('replaced nothing') == 1
    assert 'MMATTN_CPU_KERNELS' in output
