"""What every registered backbone promises, found in the registry."""

import copy
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn.parallel import DistributedDataParallel

import mmattn.backbones  # noqa: F401
from mmattn.backbones.pyramid import PyramidBackbone
from mmattn.registry import MODELS

BACKBONES = sorted(
    name
    for name, cls in MODELS.module_dict.items()
    if isinstance(cls, type) and issubclass(cls, PyramidBackbone)
)
STAGES = (0, 1, 2, 3)
EVERY_CHOICE = [
    choice for n in (1, 2, 3, 4) for choice in combinations(STAGES, n)
]


def build(name, **kwargs):
    """The family's smallest arch, with weights that let branches matter."""
    cls = MODELS.get(name)
    arch = next(a for a in cls.arch_zoo if a.endswith('nano'))
    torch.manual_seed(0)
    return cls(arch, **kwargs).double()


@pytest.fixture(params=BACKBONES)
def name(request):
    return request.param


@pytest.fixture(scope='module')
def shared_models():
    return {name: build(name).eval() for name in BACKBONES}


def test_the_registry_holds_backbones():
    assert {'BOATSwin', 'AttentionPyramid'} <= set(BACKBONES)


@settings(max_examples=15, deadline=None)
@given(
    height=st.integers(32, 150),
    width=st.integers(32, 150),
    batch=st.integers(0, 3),
    name=st.sampled_from(BACKBONES),
)
def test_any_size(name, height, width, batch, shared_models):
    model = shared_models[name]
    with torch.no_grad():
        outs = model(torch.rand(batch, 3, height, width).double())
    # CSWin's stem gives no token to one or two pixels over; see its docstring.
    over = 1 if name in ('CSWin', 'BOATCSWin') else 3
    for i, out in enumerate(outs):
        H, W = (-(-((side + over) // 4) // 2**i) for side in (height, width))
        assert out.shape == (batch, model.out_channels[i], H, W)
        assert out.isfinite().all()


@pytest.mark.parametrize('size', [(32, 32), (37, 101), (97, 64), (128, 128)])
def test_an_image_does_not_depend_on_its_batch(name, size, shared_models):
    model = shared_models[name]
    torch.manual_seed(1)
    images = torch.randn(3, 3, *size).double()
    with torch.no_grad():
        together = model(images)
        turned = model(images.flip(0))
        for i, image in enumerate(images):
            alone = model(image[None])
            for a, b, c in zip(alone, together, turned):
                torch.testing.assert_close(a[0], b[i], rtol=0, atol=1e-12)
                torch.testing.assert_close(a[0], c[2 - i], rtol=0, atol=1e-12)


@pytest.mark.filterwarnings('ignore:There is a performance drop')
def test_vmap_takes_images_and_their_gradients(name, shared_models):
    if not hasattr(torch.library, 'custom_op'):
        pytest.skip('vmap over fused attention needs torch 2.4')
    model = shared_models[name]
    images = torch.randn(2, 3, 61, 90).double()
    with torch.no_grad():
        outs = vmap(model)(images[:, None])
        torch.testing.assert_close([x[:, 0] for x in outs], [*model(images)])
    weights = {key: x.detach() for key, x in model.named_parameters()}

    def loss(weights, image):
        *_, last = functional_call(model, weights, (image[None],))
        return last.square().mean()

    grads = vmap(grad(loss), (None, 0))(weights, images)
    of_first = grad(loss)(weights, images[0])
    for key, x in grads.items():
        torch.testing.assert_close(x[0], of_first[key])


@pytest.mark.parametrize('out_indices', EVERY_CHOICE)
def test_every_parameter_takes_part_in_the_output(name, out_indices):
    model = build(name, out_indices=out_indices, drop_path_rate=0.0)
    outs = model(torch.rand(2, 3, 64, 96).double())
    assert len(outs) == len(out_indices)
    sum((out * torch.rand_like(out)).sum() for out in outs).backward()
    idle = [key for key, p in model.named_parameters() if p.grad is None]
    assert not idle


def test_out_indices_choose_among_the_same_maps(name, shared_models):
    full = shared_models[name]
    part = build(name, out_indices=(0, 2)).eval()
    part.load_state_dict(full.state_dict(), strict=True)
    x = torch.rand(1, 3, 64, 64).double()
    with torch.no_grad():
        want = full(x)
        got = part(x)
    assert torch.equal(got[0], want[0]) and torch.equal(got[1], want[2])
    assert part.out_channels == (want[0].shape[1], want[2].shape[1])
    assert len(part.stages) == 3


def test_strict_loading_still_names_foreign_keys(name):
    model = build(name)
    state = model.state_dict()
    for key in ('stranger.weight', 'stages.7.blocks.0.norm1.weight'):
        with pytest.raises(RuntimeError, match=key):
            model.load_state_dict({**state, key: torch.zeros(1)})


@pytest.mark.parametrize('frozen_stages', [-1, 0, 1, 4])
def test_frozen_stages(name, frozen_stages):
    model = build(name, frozen_stages=frozen_stages)
    model.train()
    frozen = [] if frozen_stages < 0 else [model.stem]
    frozen += model.stages[: max(frozen_stages, 0)]
    frozen += [getattr(model, f'norm{i}') for i in range(frozen_stages)]
    still = {id(p) for module in frozen for p in module.parameters()}
    for parameter in model.parameters():
        assert parameter.requires_grad == (id(parameter) not in still)
    assert not any(m.training for part in frozen for m in part.modules())
    for stage in model.stages[max(frozen_stages, 0) :]:
        assert stage.training
    if still != {id(p) for p in model.parameters()}:
        outs = model(torch.rand(1, 3, 32, 32).double())
        sum(out.sum() for out in outs).backward()
        for parameter in model.parameters():
            assert (parameter.grad is None) == (id(parameter) in still)


def bytes_kept(model, x):
    """Bytes that a forward pass keeps for its backward pass."""
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        outs = model(x)
    return outs, sum(kept.values())


# Other implementations take float32 than float64.
@pytest.mark.parametrize(
    'dtype, close', [(torch.float64, 1e-12), (torch.float32, 1e-5)]
)
def test_activation_checkpoints_change_memory_alone(name, dtype, close):
    plain = build(name, drop_path_rate=0.0).to(dtype)
    saving = build(name, drop_path_rate=0.0, with_cp=True).to(dtype)
    saving.load_state_dict(plain.state_dict())
    x = torch.rand(2, 3, 64, 64, dtype=dtype)
    kept, gradients = {}, {}
    for model in (plain, saving):
        outs, kept[model.with_cp] = bytes_kept(model, x)
        sum((out**2).sum() for out in outs).backward()
        gradients[model.with_cp] = [p.grad for p in model.parameters()]
    for a, b in zip(gradients[False], gradients[True]):
        torch.testing.assert_close(a, b, rtol=close, atol=close)
    for a, b in zip(plain.buffers(), saving.buffers()):
        torch.testing.assert_close(a, b, rtol=close, atol=close)
    assert kept[True] < 0.5 * kept[False]


def test_drop_path_acts_in_training_only(name):
    model = build(name, drop_path_rate=0.5)
    blocks = [block for stage in model.stages for block in stage.blocks]
    rates = [block.drop_path.drop_prob for block in blocks]
    assert rates[0] == 0 and rates[-1] == 0.5
    steps = torch.tensor(rates).diff()
    torch.testing.assert_close(steps, steps[:1].expand_as(steps))
    x = torch.rand(1, 3, 32, 32).double()
    model.eval()
    assert torch.equal(model(x)[-1], model(x)[-1])
    model.train()
    drawn = [model(x)[-1] for _ in range(4)]
    assert any(not torch.equal(drawn[0], other) for other in drawn[1:])


def test_norm_eval_keeps_batch_norm_still(name):
    model = build(name, norm_eval=True)
    # Stands for a family that has batch normalisation in its blocks.
    model.stages[0].blocks[0].extra = nn.BatchNorm2d(4)
    model.train()
    assert not model.stages[0].blocks[0].extra.training
    assert model.stages[0].blocks[0].norm1.training


def test_layer_depth_grows_from_stem_to_norms(name):
    model = build(name)
    num_blocks = sum(len(stage.blocks) for stage in model.stages)
    depths = {}
    for key, _ in model.named_parameters(prefix='backbone'):
        depth, num_layers = model.get_layer_depth(key, 'backbone.')
        assert num_layers == num_blocks + 2
        depths.setdefault(depth, []).append(key)
    assert sorted(depths) == list(range(num_blocks + 2))
    assert all('.stem.' in key for key in depths[0])
    last = depths[num_layers - 1]
    assert all(key.startswith('backbone.norm') for key in last)
    assert model.get_layer_depth('head.fc.weight', 'backbone.') == (
        num_layers - 1,
        num_layers,
    )
    first = model.get_layer_depth('stages.1.downsample.norm.weight')
    assert first == model.get_layer_depth('stages.1.blocks.0.norm1.weight')


def test_autocast_is_as_near_as_the_plain_formulas(name, half):
    model = build(name, drop_path_rate=0.0).float()
    x = torch.randn(2, 3, 64, 64)
    want = torch.cat([out.flatten() for out in model(x)])
    error = {}
    for impl in ('reference', 'auto'):
        for module in model.modules():
            if hasattr(module, 'impl'):
                module.impl = impl
        with torch.autocast('cpu', half):
            outs = torch.cat([out.flatten() for out in model(x)]).float()
        assert outs.isfinite().all()
        error[impl] = (outs - want).norm()
    assert error['auto'] <= 2 * error['reference']
    outs.mean().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize('out_indices', EVERY_CHOICE)
def test_distributed_training_finds_no_unused_parameter(
    name, out_indices, process_group
):
    model = build(name, out_indices=out_indices, drop_path_rate=0.1)
    wrapped = DistributedDataParallel(model, find_unused_parameters=False)
    for _ in range(2):  # an unused parameter shows in the second step
        outs = wrapped(torch.rand(2, 3, 32, 64).double())
        sum(out.mean() for out in outs).backward()


def test_in_channels(name):
    outs = build(name, in_channels=1)(torch.rand(1, 1, 32, 32).double())
    assert len(outs) == 4


def test_a_copy_computes_the_same(name, shared_models):
    model = shared_models[name]
    x = torch.rand(1, 3, 45, 32).double()
    assert torch.equal(copy.deepcopy(model)(x)[3], model(x)[3])


@pytest.mark.parametrize('out_indices', [(4,), (), (1, 0), (0, 0), 3, (-1,)])
def test_wrong_out_indices(name, out_indices):
    with pytest.raises(
        ValueError,
        match=f'{name} expects out_indices to be ascending stage indices '
        'from 0 to 3',
    ):
        build(name, out_indices=out_indices)


def test_wrong_frozen_stages(name):
    with pytest.raises(
        ValueError,
        match=f'{name} expects frozen_stages from -1 .nothing. to 4',
    ):
        build(name, frozen_stages=5)


def test_unknown_arch_lists_the_known_ones(name):
    with pytest.raises(
        ValueError,
        match=f"{name} expects arch to be one of .*nano.*got 'huge'",
    ):
        MODELS.get(name)('huge')


def test_incomplete_arch_names_the_keys(name):
    with pytest.raises(
        ValueError, match=f'{name} expects an arch dict with the keys .*depths'
    ):
        MODELS.get(name)(dict(embed_dims=96))


def test_arch_with_stages_that_do_not_match(name):
    cls = MODELS.get(name)
    arch = dict(next(iter(cls.arch_zoo.values())), num_heads=(1, 2))
    with pytest.raises(ValueError, match='one entry per stage'):
        cls(arch)


def test_heads_that_do_not_divide_the_channels(name):
    cls = MODELS.get(name)
    arch = dict(next(iter(cls.arch_zoo.values())), num_heads=(5, 5, 5, 5))
    with pytest.raises(
        ValueError, match='expects num_heads to divide embed_dims, got'
    ):
        cls(arch)


def test_image_smaller_than_a_patch(name, shared_models):
    with pytest.raises(ValueError, match='of at least 4 x 4 pixels'):
        shared_models[name](torch.rand(1, 3, 3, 64).double())


def test_image_of_other_channels(name, shared_models):
    with pytest.raises(ValueError, match=r'images \(B, 3, H, W\)'):
        shared_models[name](torch.rand(1, 1, 64, 64).double())
