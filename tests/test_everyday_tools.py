"""Tools that work on any PyTorch model work on every registered module.

Hooks, pruning, reparametrizations, adapters, quantization, offloading,
sharding, exchanged norms, copies. They rely on what DESIGN's first rule says:
modules are called, and a parameter is read by the module that owns it.
"""

import contextlib
import copy
import io
import itertools
import pickle
import subprocess
import sys

import pytest
import torch
from registered import NAMES, build, call, make_args
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils._pytree import tree_map

from mmattn.attentions import FeatureSpaceAttention
from mmattn.layers import DropPath, LePEAttention, MixedConvolution

VARIANTS = [
    'AttentionPyramid-enltb-nano',
    'AttentionPyramid-key-value-nano',
    'AttentionPyramid-sliding-window-nano',
]
BATCH_NORM = ('SMT', 'PerspectiveEncoder', 'PerspectiveHead')
BATCH_NORM += ('ScaleAwareModulation',)


@pytest.fixture(params=NAMES + VARIANTS)
def name(request):
    return request.param


@pytest.fixture(params=['eval', 'train'])
def mode(request):
    return request.param


def make(name, mode='eval', dtype=torch.float64):
    return build(name).to(dtype).train(mode == 'train')


def run(model, args):
    """Outputs and gradients of the parameters, all random numbers alike."""
    torch.manual_seed(3)
    model.zero_grad()
    outs = call(model, args)
    sum(out.square().mean() for out in outs).backward()
    grads = {k: p.grad for k, p in model.named_parameters()}
    return [out.detach() for out in outs], grads


def assert_same(got, want, atol=1e-12):
    for a, b in itertools.zip_longest(got, want):
        torch.testing.assert_close(a, b, rtol=0, atol=atol)


def owners(model):
    """Modules that own parameters."""
    return {
        k: m
        for k, m in model.named_modules()
        if next(m.parameters(recurse=False), None) is not None
    }


def weights(model, kinds=(nn.Linear, nn.Conv2d)):
    """Module and name of every weight of linear layers and convolutions."""
    own = (LePEAttention, MixedConvolution)
    return [
        (m, k)
        for m in model.modules()
        if isinstance(m, (*kinds, *own))
        for k, p in list(m.named_parameters(recurse=False))
        if p.ndim > 1
    ]


def takes_gradient_steps(model, args, steps=2):
    """Train for some steps; every one has to change the outputs."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for _ in range(steps):
        before, _ = run(model, args)
        optimizer.step()
        after = call(model, args)
        assert not torch.equal(after[0], before[0])


@contextlib.contextmanager
def shared_clusters(monkeypatch):
    """Record the clusters of a first forward pass, repeat them in others.

    Rounding moves tokens between clusters; what is compared here is
    everything else. Yields a function that starts the next pass.
    """
    compute, kept, turn = FeatureSpaceAttention.cluster, [], [None]

    def cluster(self, qkv):
        if turn[0] is None:
            kept.append(compute(self, qkv))
            return kept[-1]
        turn[0] += 1
        return kept[turn[0] - 1]

    def repeat():
        turn[0] = 0

    with monkeypatch.context() as patch:
        patch.setattr(FeatureSpaceAttention, 'cluster', cluster)
        yield repeat


def test_hooks_fire_and_change_nothing(name, mode):
    model, args = make(name, mode), make_args(name, dtype=torch.float64)
    want = run(copy.deepcopy(model), args)
    forward, backward = set(), set()
    for key, module in owners(model).items():
        module.register_forward_hook(lambda *_, k=key: forward.add(k))
        module.register_full_backward_hook(lambda *_, k=key: backward.add(k))
    got = run(model, args)
    assert_same(got[0], want[0])
    assert_same(got[1].values(), want[1].values())
    assert forward == backward == set(owners(model))


def test_prune(name, mode):
    model, args = make(name, mode), make_args(name, dtype=torch.float64)
    pruned = [
        (module, key)
        for module in owners(model).values()
        for key, p in list(module.named_parameters(recurse=False))
        if p.ndim > 1
    ]
    for module, key in pruned:
        prune.l1_unstructured(module, key, amount=0.3)
    assert_same_as_masked(model, pruned, make(name, mode), args)
    takes_gradient_steps(model, args)
    assert all((getattr(m, key) == 0).any() for m, key in pruned)
    skeleton = make(name, mode)
    for module in owners(skeleton).values():
        for key, p in list(module.named_parameters(recurse=False)):
            if p.ndim > 1:
                prune.identity(module, key)
    skeleton.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert_same(call(skeleton.eval(), args), call(model.eval(), args))


def assert_same_as_masked(model, pruned, masked, args):
    """Compare with a model whose weights are zero where others are pruned."""
    names = {m: k for k, m in model.named_modules()}
    for module, key in pruned:
        weight = getattr(masked.get_submodule(names[module]), key)
        weight.data = getattr(module, key).detach().clone()
    outs, grads = run(model, args)
    want, dense = run(masked, args)
    assert_same(outs, want)
    for module, key in pruned:
        path = f'{names[module]}.{key}'.lstrip('.')
        mask = getattr(module, f'{key}_mask')
        assert_same([grads[f'{path}_orig']], [dense[path] * mask])


@pytest.mark.parametrize('kind', ['hooked', 'parametrized'])
def test_weight_norm(name, kind):
    if kind == 'parametrized' and not hasattr(parametrizations, 'weight_norm'):
        pytest.skip('parametrizations.weight_norm needs torch 2.0')
    function = (
        torch.nn.utils.weight_norm
        if kind == 'hooked'
        else parametrizations.weight_norm
    )
    model, args = make(name), make_args(name, dtype=torch.float64)
    want = [out.detach() for out in call(model, args)]
    found = weights(model)
    for module, key in found:
        function(module, key)
    assert_same(call(model, args), want, atol=1e-5)
    _, grads = run(model, args)
    of_weights = [k for k in grads if k.endswith(('_g', '_v', 'original0'))]
    assert len(of_weights) >= len(found)
    assert all(grads[k] is not None for k in of_weights)
    takes_gradient_steps(model.train(), args)


@pytest.mark.parametrize('kind', ['hooked', 'parametrized'])
def test_spectral_norm(name, kind):
    function = (
        torch.nn.utils.spectral_norm
        if kind == 'hooked'
        else parametrizations.spectral_norm
    )
    model, args = make(name, 'train'), make_args(name, dtype=torch.float64)
    for module in model.modules():
        if isinstance(module, DropPath):
            module.drop_prob = 0.0  # every branch takes part
    found = weights(model)
    for module, key in found:
        function(module, key, n_power_iterations=300)
    _, grads = run(model, args)
    for module, key in found:
        weight = getattr(module, key)
        norm = torch.linalg.matrix_norm(weight.flatten(1), 2)
        assert norm.item() == pytest.approx(1, abs=1e-2)
    originals = [k for k in grads if k.endswith(('_orig', '.original'))]
    assert len(originals) == len(found)
    assert not [k for k in originals if not grads[k].abs().sum() > 0]


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64], ids=str)
def test_lora(name, dtype, monkeypatch):
    peft = pytest.importorskip('peft', reason='peft is not installed')
    model, args = make(name, dtype=dtype), make_args(name, dtype=dtype)
    targets = [
        k
        for k, m in model.named_modules()
        if isinstance(m, nn.Linear)
        # The adapters of peft do not dilate.
        or (isinstance(m, nn.Conv2d) and m.groups == m.dilation[0] == 1)
    ]
    before = [out.detach() for out in call(model, args)]
    config = peft.LoraConfig(
        r=2,
        lora_alpha=1,
        target_modules=targets,
        init_lora_weights=False,
    )
    adapted = peft.get_peft_model(model, config).to(dtype)
    with shared_clusters(monkeypatch) as repeat:
        want, grads = run(adapted, args)
        assert not torch.allclose(want[0], before[0])
        adapters = {k: g for k, g in grads.items() if 'lora_' in k}
        assert len(adapters) == 2 * len(targets)
        assert all(
            g is not None and g.abs().sum() > 0 for g in adapters.values()
        )
        repeat()
        merged = adapted.merge_and_unload()
        atol = 1e-5 if dtype == torch.float32 else 1e-12
        scale = max(out.abs().max() for out in want).clamp(min=1)
        with torch.no_grad():
            assert_same(call(merged, args), want, atol=atol * scale.item())


@pytest.mark.filterwarnings('ignore')
def test_quantize_dynamic(name, monkeypatch):
    model, args = make(name, dtype=torch.float32), make_args(name)
    with torch.no_grad(), shared_clusters(monkeypatch) as repeat:
        want = call(model, args)
        quantized = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
        repeat()
        got = call(quantized, args)
    assert not any(type(m) is nn.Linear for m in quantized.modules())
    for a, b in zip(got, want):
        assert (a - b).norm() <= 0.05 * b.norm()


@pytest.mark.parametrize('where', ['cpu', 'disk'])
def test_offload(name, where, tmp_path):
    accelerate = pytest.importorskip(
        'accelerate', reason='accelerate is not installed'
    )
    model, args = make(name, dtype=torch.float32), make_args(name)
    with torch.no_grad():
        want = call(model, args)
        device = torch.device('cpu')
        if where == 'cpu':
            accelerate.cpu_offload(model, execution_device=device)
        else:
            accelerate.disk_offload(model, tmp_path, execution_device=device)
        assert all(p.is_meta for p in model.parameters())
        assert_same(call(model, args), want, atol=0)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('norm', ['GroupNorm', 'Frozen', 'SyncBatchNorm'])
def test_exchanged_batch_norm(name, norm, mode):
    if not name.startswith(BATCH_NORM):
        pytest.skip('it has no batch normalization')
    if norm == 'SyncBatchNorm' and mode == 'train':
        pytest.skip('SyncBatchNorm trains on a GPU only')
    model, args = make(name, mode), make_args(name, dtype=torch.float64)
    fill_statistics(model)
    want = call(copy.deepcopy(model).eval(), args)
    if norm == 'SyncBatchNorm':
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        model.eval()  # torch 2.1 puts the new modules into training mode
    else:
        exchange(model, norm)
    assert not any(type(m) is nn.BatchNorm2d for m in model.modules())
    _, grads = run(model, args)
    assert all(g is not None for g in grads.values())
    got = call(model.eval(), args)
    if norm == 'GroupNorm':
        assert all(out.isfinite().all() for out in got)
        takes_gradient_steps(model.train(), args)
    else:
        assert_same(got, want, atol=1e-10)


def exchange(model, norm):
    from torchvision.ops import FrozenBatchNorm2d

    for parent in list(model.modules()):
        for key, child in list(parent.named_children()):
            if type(child) is not nn.BatchNorm2d:
                continue
            if norm == 'GroupNorm':
                new = nn.GroupNorm(2, child.num_features)
            else:
                new = FrozenBatchNorm2d(child.num_features, child.eps)
                new.double().load_state_dict(child.state_dict())
            setattr(parent, key, new.double())


def fill_statistics(model):
    """Running statistics that matter."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias, -1, 1)


def test_fuse_conv_bn(name, mode):
    from mmcv.cnn import fuse_conv_bn

    if not name.startswith(BATCH_NORM):
        pytest.skip('it has no batch normalization')
    model, args = make(name, mode), make_args(name, dtype=torch.float64)
    fill_statistics(model)
    want = call(copy.deepcopy(model).eval(), args)
    fused = fuse_conv_bn(model).eval()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())
    assert_same(call(fused, args), want, atol=1e-9)


def test_copies(name):
    model, args = make(name), make_args(name, dtype=torch.float64)
    want = call(model, args)
    assert_same(call(copy.deepcopy(model), args), want, atol=0)
    assert_same(call(pickle.loads(pickle.dumps(model)), args), want, atol=0)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = build(name, seed=5).double().eval()
    other.load_state_dict(torch.load(file, weights_only=True))
    assert_same(call(other, args), want, atol=0)


def test_meta_device(name):
    model, args = make(name), make_args(name, dtype=torch.float64)
    want = call(model, args)
    for how in ('assign', 'to_empty'):
        with torch.device('meta'):
            empty = build(name).double().eval()
        assert all(p.is_meta for p in empty.parameters())
        if how == 'assign':
            empty.load_state_dict(model.state_dict(), assign=True)
        else:
            empty.to_empty(device='cpu').load_state_dict(model.state_dict())
        assert_same(call(empty, args), want, atol=0)


def test_no_images(name):
    model = make(name)
    args = make_args(name, batch=0, dtype=torch.float64)
    outs = call(model, args)
    some = call(model, make_args(name, dtype=torch.float64))
    assert [o.shape[1:] for o in outs] == [o.shape[1:] for o in some]
    assert all(len(out) == 0 for out in outs)
    sum(out.sum() for out in outs).backward()
    assert all((p.grad == 0).all() for p in model.parameters())


class Tagged(torch.Tensor):
    """A tensor that stays of its class, whatever is computed from it."""


class Wrapped(torch.Tensor):
    """A tensor that keeps its values in another one, as torchao's do."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            dtype=inner.dtype,
            device=inner.device,
        )

    def __init__(self, inner):
        self.inner = inner

    def __repr__(self):
        return f'Wrapped({self.inner})'

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        def unwrap(x):
            return x.inner if isinstance(x, cls) else x

        out = func(*tree_map(unwrap, args), **tree_map(unwrap, kwargs or {}))
        return cls(out) if func is torch.ops.aten.detach.default else out


@pytest.mark.parametrize('cls', [Tagged, Wrapped])
def test_parameters_of_a_subclass(name, cls):
    if cls is Wrapped and not hasattr(torch.library, 'custom_op'):
        pytest.skip('nn.Parameter of torch 2.1 loses attributes of tensors')
    model, args = make(name), make_args(name, dtype=torch.float64)
    want = run(copy.deepcopy(model), args)
    for module in owners(model).values():
        for key, p in list(module.named_parameters(recurse=False)):
            inner = p.detach()
            new = inner.as_subclass(cls) if cls is Tagged else cls(inner)
            setattr(module, key, nn.Parameter(new))
    outs, grads = run(model, args)
    assert_same([torch.Tensor(o) for o in outs], want[0])
    if cls is Tagged:
        grads = [g.as_subclass(torch.Tensor) for g in grads.values()]
        assert_same(grads, want[1].values())


def test_functional_call(name, mode):
    model, args = make(name, mode), make_args(name, dtype=torch.float64)
    other = build(name, seed=5).double().train(mode == 'train')
    state = copy.deepcopy(other).state_dict(keep_vars=True)
    torch.manual_seed(3)
    outs = torch.func.functional_call(model, state, args)
    outs = [outs] if isinstance(outs, torch.Tensor) else list(outs)
    sum(out.square().mean() for out in outs).backward()
    want, grads = run(other, args)
    assert_same([out.detach() for out in outs], want)
    for key, grad in grads.items():
        assert_same([state[key].grad], [grad])


@pytest.mark.skipif(
    not hasattr(torch.__future__, 'set_swap_module_params_on_conversion'),
    reason='swapped parameters need torch 2.3',
)
def test_swap_tensors(name):
    model, args = make(name), make_args(name, dtype=torch.float64)
    with torch.no_grad():  # a graph would hold on to the parameters
        want = call(model, args)
    parameters = list(model.parameters())
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        model = model.to(torch.float32).to(torch.float64)
        other = build(name, seed=5).double().eval()
        other.load_state_dict(make(name).state_dict())
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    assert all(a is b for a, b in zip(parameters, model.parameters()))
    assert_same(call(other, args), want, atol=0)
    assert all(out.isfinite().all() for out in call(model, args))


class Opaque(nn.Module):
    """A wrapper that can be called and nothing else, as adapters are."""

    def __init__(self, wrapped):
        super().__init__()
        self.wrapped = wrapped

    def forward(self, *args):
        return self.wrapped(*args)


def test_children_are_only_called(name, mode):
    containers = (nn.ModuleList, nn.ModuleDict, nn.Sequential)
    model, args = make(name, mode), make_args(name, dtype=torch.float64)
    want = run(copy.deepcopy(model), args)
    for parent in list(model.modules()):
        # mmcv reads its convolution's attributes.
        if parent.__class__.__module__.startswith('mmcv'):
            continue
        for key, child in list(parent.named_children()):
            if not isinstance(child, containers):
                parent._modules[key] = Opaque(child)
    outs, grads = run(model, args)
    assert_same(outs, want[0])
    assert_same(grads.values(), want[1].values())


def test_parametrized_by_a_function(name):
    """torch.nn.utils.parametrize of every parameter, by itself."""

    class Doubled(nn.Module):
        def forward(self, x):
            return 2 * x

        def right_inverse(self, x):
            return x / 2

    model, args = make(name), make_args(name, dtype=torch.float64)
    want = [out.detach() for out in call(model, args)]
    for module in owners(model).values():
        for key, _ in list(module.named_parameters(recurse=False)):
            parametrize.register_parametrization(module, key, Doubled())
    assert_same(call(model, args), want)


def test_fully_shard():
    """FSDP2 of every module in one pair of processes, see sharding.py."""
    if not hasattr(torch.distributed, 'fsdp') or not hasattr(
        torch.distributed.fsdp, 'fully_shard'
    ):
        pytest.skip('fully_shard needs torch 2.6')
    script = f'{__file__.rpartition("/")[0]}/sharding.py'
    ended = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=500
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    sharded = [x.split()[1] for x in ended.stdout.splitlines() if 'OK' in x]
    assert sorted(sharded) == sorted(NAMES + VARIANTS)


def test_the_list_of_norms_is_right(name):
    has = any(isinstance(m, nn.BatchNorm2d) for m in make(name).modules())
    assert has == name.startswith(BATCH_NORM)
