import pytest
import torch

from mmattn.attentions import FeatureSpaceAttention


def test_heads_cluster_by_themselves_or_together():
    qkv = torch.randn(2, 14, 14, 36)
    layer = FeatureSpaceAttention(12, 3)
    order = layer.cluster(qkv)
    assert not torch.equal(order[:, 0], order[:, 1])
    layer.with_shared_clusters = True
    order = layer.cluster(qkv)
    assert torch.equal(order[:, 0], order[:, 1])
    assert torch.equal(order[:, 0], order[:, 2])


def test_scale_one_suits_the_published_boat_cswin():
    default = FeatureSpaceAttention(16, 1)
    same = FeatureSpaceAttention(16, 1, scale=0.25)
    other = FeatureSpaceAttention(16, 1, scale=1.0)
    for layer in (same, other):
        layer.load_state_dict(default.state_dict())
    x = torch.randn(1, 10, 10, 16) * 9
    torch.testing.assert_close(default(x), same(x))
    assert not torch.allclose(default(x), other(x))


def test_distant_tokens_that_are_alike_meet():
    """A change in one token reaches its like, far outside any window."""
    layer = FeatureSpaceAttention(8, 1, overlap=0).double()
    torch.nn.init.eye_(layer.qkv.weight[:8])
    x = torch.randn(1, 20, 20, 8).double() * 0.1
    x[..., 0] += 3
    x[0, 0, 0], x[0, 19, 19] = 0, 0
    x[0, 0, 0, 1] = x[0, 19, 19, 1] = 5.0
    x.requires_grad_()
    layer(x)[0, 0, 0].sum().backward()
    reach = x.grad[0].abs().sum(-1)
    assert reach[19, 19] > 0
    assert (reach == 0).sum() > 200


@pytest.mark.parametrize(
    'options',
    [dict(overlap=50), dict(overlap=-1), dict(cluster_size=0, overlap=0)],
)
def test_wrong_clusters(options):
    with pytest.raises(
        ValueError,
        match='expects 0 <= overlap <= cluster_size and '
        'cluster_size >= 1, got',
    ):
        FeatureSpaceAttention(8, 1, **options)


def test_lepe_of_older_checkpoints_loads():
    layer = FeatureSpaceAttention(8, 2)
    state = layer.state_dict()
    assert list(state)[-2:] == ['lepe.weight', 'lepe.bias']
    old = {k.replace('lepe', 'local_conv'): v + 1 for k, v in state.items()}
    want = {k: v + 1 for k, v in state.items()}
    layer.load_state_dict(old, strict=True)
    torch.testing.assert_close(dict(layer.state_dict()), want)
