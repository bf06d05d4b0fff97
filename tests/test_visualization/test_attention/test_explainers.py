import pytest
import torch

from mmattn.attentions import (
    CrossShapedWindowAttention,
    EfficientNonLocalAttention,
    FeatureSpaceAttention,
    KeyValueAttention,
    MultiHeadSelfAttention,
    ScaleAwareModulation,
    SlidingWindowAttention,
    WindowAttention,
    feature_space_attention,
)
from mmattn.ops import cluster_sizes, shifted_window_bias
from mmattn.visualization.attention import AttentionRows, Clusters, explain
from mmattn.visualization.attention.explainers import count_heads

C, SIZE = 8, (9, 14)
TOKENS = [(0, 0), (4, 6), (8, 13)]
# Sizes that no window divides, more than one cut, padding on all sides.
LAYERS = dict(
    window=lambda: WindowAttention(C, 2, 5),
    shifted=lambda: WindowAttention(C, 2, 5, with_shift=True),
    sliding=lambda: SlidingWindowAttention(C, 2, 5, stride=3),
    stripes=lambda: CrossShapedWindowAttention(C, 4, 3),
    whole_map=lambda: CrossShapedWindowAttention(C, 4, None),
    clusters=lambda: FeatureSpaceAttention(C, 2, cluster_size=7, overlap=3),
    shared_clusters=lambda: FeatureSpaceAttention(
        C, 2, cluster_size=7, overlap=3, with_shared_clusters=True
    ),
    dense=lambda: MultiHeadSelfAttention(C, 2),
    random_features=lambda: EfficientNonLocalAttention(
        C, 2, key_dims=4, with_position=True
    ),
    key_value=lambda: KeyValueAttention(C, 2),
    reduced=lambda: KeyValueAttention(
        C, 2, spatial_reduction=2, with_position=True
    ),
)


@pytest.fixture(params=LAYERS)
def layer(request):
    layer = LAYERS[request.param]().double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return layer


@pytest.fixture
def x():
    return torch.randn(1, *SIZE, C, dtype=torch.double)


def rows_of(layer, x, tokens=TOKENS):
    (rows,) = [
        found
        for found in explain(layer, (x,), tokens)
        if isinstance(found, AttentionRows)
    ]
    return rows


def values_of(layer, x):
    """Values ``(*, C)`` and the value of a padded token, ``(C, )``."""
    if isinstance(layer, EfficientNonLocalAttention):
        return layer.v(x)[0], None
    if isinstance(layer, KeyValueAttention):
        source = layer._reduced(x)
        return layer.v_proj(source)[0], None
    padding = torch.zeros(C, dtype=x.dtype)
    if isinstance(layer, WindowAttention):
        padding = layer.qkv.bias[-C:]
    return layer.qkv(x)[0, ..., -C:], padding


def local_part(layer, x):
    """The LePE term that is added to the attended values."""
    conv = getattr(layer, 'lepe', getattr(layer, 'local_conv', None))
    if conv is None:
        return torch.zeros(*SIZE, C, dtype=x.dtype)
    v = layer.qkv(x)[..., -C:].permute(0, 3, 1, 2)
    if not getattr(conv, 'stripe_width', None):
        out = torch.conv2d(v, conv.weight, conv.bias, padding=1, groups=C)
        return out[0].permute(1, 2, 0)
    parts = []
    width = conv.stripe_width
    for part, axis in enumerate((2, 1)):
        half = slice(part * C // 2, (part + 1) * C // 2)
        out = torch.zeros(C // 2, *SIZE, dtype=x.dtype)
        start = -((-SIZE[axis - 1] % width) // 2)
        while start < SIZE[axis - 1]:
            cut = [slice(None)] * 3
            cut[axis] = slice(max(start, 0), start + width)
            out[tuple(cut)] = torch.conv2d(
                v[:, half][(slice(None), *cut)],
                conv.weight[half],
                conv.bias[half],
                padding=1,
                groups=C // 2,
            )[0]
            start += width
        parts.append(out)
    return torch.cat(parts).permute(1, 2, 0)


def test_the_rows_times_the_values_give_the_output(layer, x):
    weights = rows_of(layer, x).weights  # (t, h, *)
    values, padding = values_of(layer, x)
    heads = values.unflatten(-1, (count_heads(layer), -1))  # (*, h, d)
    mixed = torch.einsum('thyx,yxhd->thd', weights, heads)
    if padding is not None:
        lost = 1 - weights.sum(dim=(2, 3))
        mixed += lost[..., None] * padding.view(count_heads(layer), -1)
    mixed = mixed.flatten(1)  # (t, C)
    mixed += torch.stack([local_part(layer, x)[place] for place in TOKENS])
    last = getattr(
        layer, 'proj', getattr(layer, 'o_proj', torch.nn.Identity())
    )
    expected = torch.stack([layer(x)[0][place] for place in TOKENS])
    torch.testing.assert_close(last(mixed), expected)


def test_weights_are_within_reach_and_sum_to_one(layer, x):
    rows = rows_of(layer, x)
    total = rows.weights.sum(dim=(2, 3))
    assert (rows.weights >= 0).all() and (total < 1 + 1e-9).all()
    if rows.reach is not None:
        assert torch.equal(rows.weights > 0, rows.reach)


def test_a_row_of_shifted_windows_is_a_softmax():
    layer = WindowAttention(C, 2, 4, with_shift=True).double()
    x = torch.randn(1, 8, 12, C, dtype=torch.double)
    tokens = [(0, 0), (4, 6), (7, 11)]
    weights = rows_of(layer, x, tokens).weights
    q, k, _ = layer.qkv(x).view(8, 12, 3, 2, C // 2).unbind(2)
    table = layer.relative_position_bias_table
    apart = shifted_window_bias((8, 12), (4, 4), (2, 2), x.device)
    for i, (row, column) in enumerate(tokens):
        expected = torch.full((2, 8, 12), -torch.inf, dtype=torch.double)
        r, c = (row - 2) % 8, (column - 2) % 12  # on the rolled map
        window = r // 4 * 3 + c // 4
        for n in range(16):
            to_r, to_c = r // 4 * 4 + n // 4, c // 4 * 4 + n % 4
            if apart[window, r % 4 * 4 + c % 4, n] == 0:
                y, x = (to_r + 2) % 8, (to_c + 2) % 12
                score = (q[row, column] * k[y, x]).sum(-1) * (C // 2) ** -0.5
                offset = (r - to_r + 3) * 7 + c - to_c + 3
                expected[:, y, x] = score + table[offset]
        expected = expected.flatten(1).softmax(1).view_as(expected)
        torch.testing.assert_close(weights[i], expected)


def test_a_row_of_random_features(x):
    layer = EfficientNonLocalAttention(C, 2, amplification=2.0).double()
    q, k = layer.embed(x)  # (1, h, N, d)
    features = [
        (u @ layer.projection.mT - u.square().sum(-1, keepdim=True) / 2).exp()
        + 1e-4
        for u in (q, k)
    ]
    implied = features[0] @ features[1].mT
    implied = (implied / implied.sum(-1, keepdim=True)).view(2, 126, *SIZE)
    weights = rows_of(layer, x).weights
    for i, (row, column) in enumerate(TOKENS):
        expected = implied[:, row * SIZE[1] + column]
        torch.testing.assert_close(weights[i], expected)


def test_the_reach_of_a_token(x):
    def reached(layer):
        return rows_of(layer, x).reach.sum(dim=(2, 3)).tolist()

    # Windows from the corners; at the far corner, windows are cut off.
    assert reached(WindowAttention(C, 2, 5).double()) == [
        [25, 25],
        [25, 25],
        [16, 16],
    ]
    # Stripes of 3 columns, then of 3 rows; 14 columns are padded to 15, all
    # at the right.
    assert reached(CrossShapedWindowAttention(C, 2, 3).double()) == [
        [27, 42],
        [27, 42],
        [18, 42],
    ]
    # Clusters of 7 or 8, and 3 of the sibling.
    layer = FeatureSpaceAttention(C, 2, cluster_size=7, overlap=3).double()
    assert {n for pair in reached(layer) for n in pair} <= {10, 11}


def test_clusters_are_those_of_the_forward_pass(x, monkeypatch):
    layer = FeatureSpaceAttention(C, 2, cluster_size=7, overlap=3).double()
    orders = []

    def spy(*args):
        orders.append(real(*args))
        return orders[-1]

    real = feature_space_attention.balanced_clusters
    monkeypatch.setattr(feature_space_attention, 'balanced_clusters', spy)
    layer(x)
    ((order,),) = orders  # (h, N)
    clusters, _ = explain(layer, (x,), TOKENS)
    assert isinstance(clusters, Clusters)
    sizes = cluster_sizes(126, 7)
    assert len(clusters.levels) == 4 and len(sizes) == 16
    for head, places in enumerate(order):
        for label, tokens in enumerate(places.split(sizes)):
            finest = clusters.levels[-1][head].flatten()
            assert finest[tokens].tolist() == [label] * len(tokens)


def test_levels_nest_and_balance(x):
    layer = FeatureSpaceAttention(C, 2, cluster_size=7, overlap=3).double()
    levels = explain(layer, (x,), TOKENS)[0].levels
    for i, level in enumerate(levels):
        assert level.shape == (2, *SIZE)
        counts = level[0].flatten().bincount()
        assert len(counts) == 2 ** (i + 1) and counts.max() - counts.min() <= 1
    for coarse, fine in zip(levels, levels[1:]):
        assert torch.equal(fine // 2, coarse)


def test_one_cluster_has_no_levels(x):
    layer = FeatureSpaceAttention(C, 2, cluster_size=70, overlap=3).double()
    (rows,) = explain(layer, (x,), TOKENS)
    assert rows.reach.all()


def test_the_modulator_and_its_scales(x):
    layer = ScaleAwareModulation(C, 2).double().eval()
    (found,) = explain(layer, (x,), TOKENS)
    assert found.sides == (3, 5)
    # With one channel left of the values, the result is the modulator's.
    outs = torch.zeros(*SIZE, C, dtype=x.dtype)
    torch.nn.init.eye_(layer.proj.weight)
    torch.nn.init.zeros_(layer.proj.bias)
    for channel in range(C):
        torch.nn.init.zeros_(layer.v.weight)
        layer.v.bias.data = torch.eye(C, dtype=x.dtype)[channel]
        outs += layer(x)[0].detach()
    torch.testing.assert_close(found.modulator, outs.abs().mean(-1))
    parts = layer.s(x).permute(0, 3, 1, 2).chunk(2, dim=1)
    for i, (scale, part) in enumerate(zip(found.scales, parts)):
        weight = getattr(layer.local_convs, f'weight{i}')
        bias = getattr(layer.local_convs, f'bias{i}')
        out = torch.conv2d(
            part, weight, bias, padding=i + 1, groups=len(weight)
        )
        torch.testing.assert_close(scale, out[0].abs().mean(0))


def test_keys_without_positions_are_not_shown(x):
    layer = KeyValueAttention(C, 2).double()
    keys = torch.randn(1, 5, C, dtype=torch.double)
    assert explain(layer, (x, keys, keys), TOKENS) == []
