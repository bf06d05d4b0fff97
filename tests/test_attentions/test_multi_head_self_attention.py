import torch
import torch.nn.functional as F

from mmattn.attentions import MultiHeadSelfAttention


def test_equals_a_loop_over_heads_and_a_convolution():
    layer = MultiHeadSelfAttention(12, 3).double()
    x = torch.randn(2, 3, 5, 12).double()
    q, k, v = layer.qkv(x).chunk(3, dim=-1)
    outs = []
    for part in (slice(0, 4), slice(4, 8), slice(8, 12)):
        scores = q[..., part].flatten(1, 2) @ k[..., part].flatten(1, 2).mT
        outs.append((scores / 2).softmax(-1) @ v[..., part].flatten(1, 2))
    out = torch.cat(outs, dim=-1).unflatten(1, (3, 5))
    local = torch.zeros_like(v)
    padded = F.pad(v, (0, 0, 1, 1, 1, 1))
    for row in range(3):
        for col in range(3):
            seen = padded[:, row : row + 3, col : col + 5]
            local += seen * layer.local_conv.weight[:, 0, row, col]
    want = layer.proj(out + local + layer.local_conv.bias)
    torch.testing.assert_close(layer(x), want)


def test_projection_without_bias():
    layer = MultiHeadSelfAttention(8, 2, qkv_bias=False)
    assert layer.qkv.bias is None
    assert layer.proj.bias is not None
