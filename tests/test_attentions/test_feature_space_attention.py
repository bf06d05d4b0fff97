import pytest
import torch

from mmattn.attentions import FeatureSpaceAttention
from mmattn.ops import (
    implementations,
    register_implementation,
    watch_choices,
)


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


def test_a_name_is_for_all_operations_that_have_it(monkeypatch):
    for operation, rows in list(implementations._TABLE.items()):
        monkeypatch.setitem(implementations._TABLE, operation, dict(rows))
    defined = implementations._TABLE['balanced_clusters']['reference']
    register_implementation('balanced_clusters', 'sdpa', priority=-9)(
        defined.function
    )
    x, taken = torch.randn(1, 5, 6, 8), []
    with watch_choices(lambda row: taken.append((row.operation, row.name))):
        for impl in ('reference', 'sdpa'):
            FeatureSpaceAttention(8, 2, 4, 1, impl=impl)(x)
    assert ('linear', 'onednn') in taken  # layers of their own
    names = [row for row in taken if row[0] not in ('linear', 'attention')]
    assert names == [
        ('balanced_clusters', 'reference'),
        ('cluster_attention', 'reference'),
        ('depthwise_convolution', 'reference'),
        ('balanced_clusters', 'sdpa'),
        ('cluster_attention', 'sdpa'),
        ('depthwise_convolution', 'cpp'),  # it has no 'sdpa'
    ]
