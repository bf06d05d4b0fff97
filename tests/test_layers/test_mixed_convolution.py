import torch
import torch.nn.functional as F

from mmattn.layers import MixedConvolution


def test_convolves_each_head_and_regroups():
    layer = MixedConvolution(6, [3, 5, 7]).double()
    x = torch.randn(2, 4, 9, 6).double()
    heads = x.permute(0, 3, 1, 2).chunk(3, dim=1)
    outs = [
        F.conv2d(head, weight, bias, padding='same', groups=2)
        for head, weight, bias in zip(
            heads,
            (layer.weight0, layer.weight1, layer.weight2),
            (layer.bias0, layer.bias1, layer.bias2),
        )
    ]
    want = torch.stack(outs, dim=2).flatten(1, 2).permute(0, 2, 3, 1)
    torch.testing.assert_close(layer(x), want)


def test_loads_the_names_of_older_checkpoints():
    layer = MixedConvolution(4, [3, 5])
    state = layer.state_dict()
    assert list(state) == ['weight0', 'bias0', 'weight1', 'bias1']
    old = {f'{key[-1]}.{key[:-1]}': value + 1 for key, value in state.items()}
    assert set(old) == {'0.weight', '0.bias', '1.weight', '1.bias'}
    want = {key: value + 1 for key, value in state.items()}
    layer.load_state_dict(old, strict=True)
    torch.testing.assert_close(dict(layer.state_dict()), want)


def test_starts_like_the_convolutions_of_pytorch():
    layer = MixedConvolution(400, [3, 9])
    for weight, bias, side in (
        (layer.weight0, layer.bias0, 3),
        (layer.weight1, layer.bias1, 9),
    ):
        for values in (weight, bias):
            assert values.abs().max() <= 1 / side
            assert values.abs().mean() > 0.4 / side
