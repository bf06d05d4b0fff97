import numpy as np
import pytest
import torch
from golden import difference
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.parallel import DistributedDataParallel

from mmattn.backbones import PerspectiveEncoder
from mmattn.checkpoints import convert


def build(**kwargs):
    torch.manual_seed(0)
    return PerspectiveEncoder('nano', **kwargs).double()


@pytest.fixture(scope='module')
def still():
    return build().eval()


def keep(maps, name):
    def hook(module, args, out):
        maps[name()] = out.detach().numpy()

    return hook


@pytest.mark.slow
def test_equals_published_encoder(golden_case):
    case = golden_case('perspective_encoder')
    state = {k: torch.from_numpy(case['state'][k]) for k in case['state']}
    # The case leaves the counters of batch normalisation as built.
    state |= {key: torch.tensor(0) for key in case['meta']['left_as_built']}
    converted = convert(state)
    assert converted.family == 'PerspectiveEncoder'
    assert converted.source == 'perspective_unet'
    model = PerspectiveEncoder(converted.arch).double().eval()
    model.load_state_dict(converted.backbone, strict=True)
    assert sum(p.numel() for p in model.parameters()) == 101_628_224

    maps, deep = {}, []
    for i, stage in enumerate(model.stages, 1):
        stage.conv.register_forward_hook(keep(maps, f'cnn{i}'.format))
    for i, fusion in enumerate(model.fusions.values(), 1):
        fusion.expand.register_forward_hook(
            keep(maps, lambda i=i: f'integ{i}_{model.integrator.integration}')
        )
    model.integrator.register_forward_pre_hook(
        lambda module, args: deep.extend(args[0])
    )
    captures = case['captures']
    for integration in ('spatial', 'no_leak'):
        model.integrator.integration = integration
        with torch.no_grad():
            if integration == 'spatial':
                outs = model(torch.from_numpy(case['inputs']['x']))
                maps |= {f'out{i + 1}': outs[i].numpy() for i in range(2)}
                cnn = [torch.from_numpy(maps[f'cnn{i}']) for i in (3, 4, 5)]
                trans = deep[:]
                outs = outs[2:]
            else:  # what comes before it does not depend on it
                integrated = model.integrator(trans)
                fusions = model.fusions.values()
                outs = [f(*x) for f, *x in zip(fusions, integrated, cnn)]
        for i, out in enumerate(outs):
            maps[f'out{i + 3}_{integration}'] = out.numpy()
            maps[f'trans{i + 1}'] = trans[i].numpy()
    assert set(maps) == {n for n in captures if 'official' not in n}
    for name, array in maps.items():
        assert difference(captures[name], np.asarray(array)) <= 1e-9, name


@settings(max_examples=10, deadline=None)
@given(
    height=st.integers(16, 90),
    width=st.integers(16, 90),
    batch=st.integers(0, 3),
)
def test_any_size(height, width, batch, still):
    with torch.no_grad():
        outs = still(torch.rand(batch, 3, height, width).double())
    for i, out in enumerate(outs):
        assert out.shape == (batch, 8 * 2**i, height // 2**i, width // 2**i)
        assert out.isfinite().all()


@pytest.mark.parametrize('integration', ['spatial', 'no_leak'])
@pytest.mark.parametrize('with_cp', [False, True])
def test_an_empty_batch_trains(integration, with_cp):
    model = build(integration=integration, with_cp=with_cp)
    images = torch.rand(0, 3, 37, 61).double()
    sum(out.sum() for out in model(images)).backward()
    for parameter in model.parameters():
        assert not parameter.grad.any()


@pytest.mark.parametrize('integration', ['spatial', 'no_leak'])
@pytest.mark.parametrize('size', [(32, 32), (37, 61)])
def test_an_image_does_not_depend_on_its_batch(size, integration):
    model = build(integration=integration).eval()
    images = torch.randn(3, 3, *size).double()
    with torch.no_grad():
        together = model(images)
        for i, image in enumerate(images):
            for alone, out in zip(model(image[None]), together):
                torch.testing.assert_close(
                    alone[0], out[i], rtol=0, atol=1e-12
                )


@pytest.mark.parametrize('integration', ['spatial', 'no_leak'])
def test_integration_decides_what_the_transformer_reaches(integration):
    integrator = build(integration=integration).integrator
    sizes = [(8, 6), (4, 3), (2, 1)]
    maps = [
        torch.randn(1, 32 * 2**i, *size).double().requires_grad_()
        for i, size in enumerate(sizes)
    ]
    integrator(maps)[0][0, :, 3, 2].square().sum().backward()
    reached = [x.grad.abs().sum(1) > 0 for x in maps]
    if integration == 'spatial':
        assert all(grad.all() for grad in reached)
    else:
        assert reached[0].sum() == 1 and reached[0][0, 3, 2]
        assert not reached[1].any() and not reached[2].any()


@pytest.mark.parametrize('out_indices', [(4,), (0,), (0, 1), (1, 3)])
def test_every_parameter_takes_part_in_the_output(out_indices):
    model = build(out_indices=out_indices, drop_path_rate=0.0)
    outs = model(torch.rand(2, 3, 32, 48).double())
    assert len(outs) == len(out_indices)
    assert [out.shape[1] for out in outs] == list(model.out_channels)
    sum((out * torch.rand_like(out)).sum() for out in outs).backward()
    idle = [key for key, p in model.named_parameters() if p.grad is None]
    assert not idle


@pytest.mark.parametrize('out_indices', [(1,), (1, 3)])
def test_out_indices_choose_among_the_same_maps(out_indices, still):
    part = build(out_indices=out_indices).eval()
    part.load_state_dict(still.state_dict(), strict=True)
    x = torch.rand(1, 3, 40, 33).double()
    with torch.no_grad():
        want, got = still(x), part(x)
    for i, out in zip(out_indices, got, strict=True):
        assert torch.equal(out, want[i])


def test_strict_loading_still_names_foreign_keys(still):
    state = still.state_dict() | {'stages.1.stranger': torch.zeros(1)}
    with pytest.raises(RuntimeError, match='stages.1.stranger'):
        build().load_state_dict(state)


def test_activation_checkpoints_change_memory_alone(kept_bytes):
    plain = build(drop_path_rate=0.0)
    saving = build(drop_path_rate=0.0, with_cp=True)
    x = torch.rand(2, 3, 32, 48).double()
    kept = {}
    for model in (plain, saving):
        kept[model.with_cp] = kept_bytes(lambda m=model: m(x)[4])
        sum((out**2).sum() for out in model(x)).backward()
    for (key, a), b in zip(plain.named_parameters(), saving.parameters()):
        torch.testing.assert_close(
            a.grad, b.grad, rtol=1e-9, atol=1e-9, msg=key
        )
    for a, b in zip(plain.buffers(), saving.buffers()):
        torch.testing.assert_close(a, b)
    assert kept[True] < 0.5 * kept[False]


def test_frozen_stages_stay_as_they_are():
    model = build(frozen_stages=3)
    model.train()
    model(torch.rand(2, 3, 32, 32).double())[4].sum().backward()
    for i, stage in enumerate(model.stages):
        assert stage.training == (i >= 3)
        for parameter in stage.parameters():
            assert (parameter.grad is None) == (i < 3)


def test_norm_eval_keeps_batch_norm_still():
    model = build(norm_eval=True).train()
    assert not model.stages[0].conv.fuse.bn.training
    assert model.stages[2].blocks[0].training


def test_layer_depth_grows_with_the_levels():
    model = build()
    names = [f'stages.{i}.conv.fuse.bn.weight' for i in range(5)]
    names += ['integrator.norm.weight', 'fusions.2.fuse.bias']
    depths = [
        model.get_layer_depth(f'backbone.{n}', 'backbone.') for n in names
    ]
    assert depths == [(i, 6) for i in (0, 1, 2, 3, 4, 5, 5)]
    assert model.get_layer_depth('decode_head.x', 'backbone.') == (5, 6)


def test_distributed_training_finds_no_unused_parameter(process_group):
    model = build(out_indices=(0, 3), integration='no_leak')
    wrapped = DistributedDataParallel(model)
    for _ in range(2):  # an unused parameter shows in the second step
        outs = wrapped(torch.rand(2, 3, 32, 32).double())
        sum(out.mean() for out in outs).backward()


def test_autocast(half):
    model = build().float()
    with torch.autocast('cpu', half):
        outs = model(torch.rand(2, 3, 32, 48))
    sum(out.float().mean() for out in outs).backward()
    assert all(out.isfinite().all() for out in outs)
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_small_or_other_images(still):
    for shape in [(1, 3, 15, 40), (1, 1, 32, 32)]:
        with pytest.raises(
            ValueError,
            match=r'PerspectiveEncoder expects images \(B, 3, H, W\) of at '
            'least 16 x 16 pixels, got',
        ):
            still(torch.rand(shape).double())


def test_unknown_integration():
    with pytest.raises(
        ValueError, match=r"integration to be one of \('spatial', 'no_leak'\)"
    ):
        build(integration='official')


def test_transformers_on_shallow_levels():
    arch = dict(PerspectiveEncoder.arch_zoo['nano'], depths=(0, 1, 1, 1, 1))
    with pytest.raises(ValueError, match='0 in the first 2, got'):
        PerspectiveEncoder(arch)


@pytest.mark.parametrize('out_indices', [(5,), (), (1, 0)])
def test_wrong_out_indices(out_indices):
    with pytest.raises(
        ValueError, match='ascending stage indices from 0 to 4'
    ):
        build(out_indices=out_indices)
