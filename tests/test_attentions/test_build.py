import pytest

from mmattn.attentions import WindowAttention
from mmattn.attentions.build import build_attention


@pytest.mark.parametrize(
    'name', ['mmattn.WindowAttention', 'WindowAttention', WindowAttention]
)
def test_builds_by_name_or_class(name):
    cfg = dict(type=name, window_size=5)
    layer = build_attention('Test', cfg, embed_dims=8, num_heads=2)
    assert type(layer) is WindowAttention
    assert layer.window_size == 5 and layer.num_heads == 2
    assert cfg == dict(type=name, window_size=5)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(
        ValueError,
        match="Test expects registered attentions, such as .*'WindowAttention'"
        ".*, got 'WindowAtention'",
    ):
        build_attention('Test', dict(type='WindowAtention'), embed_dims=8)


@pytest.mark.parametrize('cfg', [dict(num_heads=2), 'WindowAttention'])
def test_config_without_type(cfg):
    with pytest.raises(
        TypeError, match='Test expects an attention as a dict with the key'
    ):
        build_attention('Test', cfg, embed_dims=8)
