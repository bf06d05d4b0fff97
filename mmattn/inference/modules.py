"""Modules of a model that is optimized for inference on a CPU.

They run plain PyTorch where a kernel cannot run: on other devices or dtypes,
with gradients or autocast, under torch.compile or export.
"""

from typing import ClassVar

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from mmattn.attentions import MultiHeadSelfAttention, ScaleAwareModulation
from mmattn.layers import MLP, ConvMLP, MixedConvolution
from mmattn.ops import cross_shaped_attention, mixed_convolution

from . import kernels
from .folding import fold_batch_norm, is_plain

CANNOT_TRAIN = (
    'this model is optimized for inference and cannot be trained; train the '
    'model that was given to optimize_for_inference'
)


class Fused(nn.Module):
    """A module that takes the place of another one and cannot train.

    A fused module owns the parameters that its kernel reads. If it is a
    subclass of what it replaces, the module changes its class, which keeps
    parameters and their names; else a new module is built from the old one.
    """

    kind: ClassVar[str]
    replaces: ClassVar[type[nn.Module]]
    # Children of the replaced module that the kernel computes, too.
    parts: ClassVar[dict[str, type[nn.Module]]] = {}

    @classmethod
    def fuse(cls, module: nn.Module) -> 'Fused | None':
        """Replace ``module``; None if the kernel computes something else."""
        if not cls.can_replace(module):
            return None
        if issubclass(cls, cls.replaces):
            module.__class__ = cls
        else:
            module = cls(module)
        for parameter in module.parameters(recurse=False):
            parameter.data = parameter.data.contiguous()
        return module

    @classmethod
    def can_replace(cls, module: nn.Module) -> bool:
        """Whether the kernel computes what ``module`` and its parts do."""
        return is_plain(module, cls.replaces) and all(
            is_plain(getattr(module, name), kind)
            for name, kind in cls.parts.items()
        )

    def train(self, mode: bool = True) -> nn.Module:
        """Raise RuntimeError for training mode."""
        if mode:
            raise RuntimeError(CANNOT_TRAIN)
        return super().train(mode)


class FusedLinear(Fused, nn.Linear):
    """A linear layer by a kernel for many tokens."""

    kind = 'linear'
    replaces = nn.Linear

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(*, in_features)`` to ``(*, out_features)``."""
        fits = x.ndim > 0 and x.shape[-1] == self.weight.shape[1]
        if fits and kernels.can_run(x, self.weight, self.bias):
            return kernels.linear(x, self.weight, self.bias)
        return super().forward(x)


class FusedLayerNorm(Fused, nn.LayerNorm):
    """A layer normalization of the last axis by a kernel."""

    kind = 'layer_norm'
    replaces = nn.LayerNorm

    @classmethod
    def can_replace(cls, module: nn.Module) -> bool:
        return (
            super().can_replace(module) and len(module.normalized_shape) == 1
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(*, C)`` to ``(*, C)``."""
        fits = x.ndim > 0 and x.shape[-1:] == self.normalized_shape
        if fits and kernels.can_run(x, self.weight, self.bias):
            return kernels.layer_norm(x, self.weight, self.bias, self.eps)
        return super().forward(x)


class FusedDepthwiseConv(Fused, nn.Conv2d):
    """A depthwise convolution by a kernel, for channels-last maps."""

    kind = 'depthwise_convolution'
    replaces = nn.Conv2d

    @classmethod
    def can_replace(cls, module: nn.Module) -> bool:
        return super().can_replace(module) and _is_depthwise(module)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C, H, W)``."""
        if (
            x.ndim == 4
            and x.shape[1] == self.in_channels
            and x.stride(1) == 1
            and kernels.can_run(x, self.weight, self.bias)
        ):
            out = kernels.depthwise_convolution(
                x.permute(0, 2, 3, 1), self.weight, self.bias
            )
            return out.permute(0, 3, 1, 2)
        return super().forward(x)


class FusedMLP(Fused):
    """An MLP whose hidden values stay in the caches."""

    kind = 'mlp'
    replaces = MLP
    parts: ClassVar = {'fc1': nn.Linear, 'act': nn.GELU, 'fc2': nn.Linear}

    def __init__(self, mlp: MLP) -> None:
        super().__init__()
        self.weight1, self.bias1 = mlp.fc1.weight, mlp.fc1.bias
        self.weight2, self.bias2 = mlp.fc2.weight, mlp.fc2.bias

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(*, C)`` to ``(*, C)``."""
        parameters = self.weight1, self.bias1, self.weight2, self.bias2
        fits = x.ndim > 0 and x.shape[-1] == self.weight1.shape[1]
        if fits and kernels.can_run(x, *parameters):
            return kernels.mlp(x, *parameters)
        hidden = F.gelu(F.linear(x, self.weight1, self.bias1))
        return F.linear(hidden, self.weight2, self.bias2)


class FusedConvMLP(FusedMLP):
    """SMT's MLP, some images at a time."""

    kind = 'conv_mlp'
    replaces = ConvMLP
    parts: ClassVar = {**FusedMLP.parts, 'local_conv': nn.Conv2d}

    def __init__(self, mlp: ConvMLP) -> None:
        super().__init__(mlp)
        weight = mlp.local_conv.weight.detach().clone()
        middle = weight.shape[-1] // 2
        weight[..., middle, middle] += 1  # the residual
        self.kernels, self.kernel_bias = _frozen(weight), mlp.local_conv.bias

    @classmethod
    def can_replace(cls, module: nn.Module) -> bool:
        return super().can_replace(module) and _is_depthwise(module.local_conv)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, C)`` to ``(B, H, W, C)``."""
        fc1, fc2 = (self.weight1, self.bias1), (self.weight2, self.bias2)
        conv = self.kernels, self.kernel_bias
        fits = x.ndim == 4 and x.shape[-1] == self.weight1.shape[1]
        if fits and kernels.can_run(x, *fc1, *conv, *fc2):
            return kernels.conv_mlp(x, *fc1, *conv, *fc2)
        hidden = F.linear(x, *fc1)
        hidden = F.conv2d(
            hidden.permute(0, 3, 1, 2),
            *conv,
            padding=int(self.kernels.shape[-1]) // 2,
            groups=len(self.kernels),
        )
        return F.linear(F.gelu(hidden.permute(0, 2, 3, 1)), *fc2)


class FusedSelfAttention(Fused):
    """SMT's attention with its convolution in the same operation."""

    kind = 'self_attention'
    replaces = MultiHeadSelfAttention
    parts: ClassVar = {'local_conv': nn.Conv2d}

    def __init__(self, layer: MultiHeadSelfAttention) -> None:
        super().__init__()
        self.num_heads = layer.num_heads
        self.qkv, self.proj = layer.qkv, layer.proj
        self.weight = layer.local_conv.weight
        self.bias = layer.local_conv.bias

    @classmethod
    def can_replace(cls, module: nn.Module) -> bool:
        return (
            super().can_replace(module)
            and module.impl == 'auto'
            and _is_depthwise(module.local_conv)
            and module.local_conv.kernel_size == (3, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, C)`` to ``(B, H, W, C)``."""
        # One stripe as wide as the map, whose LePE is the convolution.
        out = cross_shaped_attention(
            self.qkv(x), self.num_heads, None, self.weight, self.bias
        )
        return self.proj(out)


class FusedModulation(Fused):
    """SMT's scale-aware modulation with one kernel for all convolutions."""

    kind = 'modulation'
    replaces = ScaleAwareModulation
    parts: ClassVar = {
        'local_convs': MixedConvolution,
        'expand': nn.Conv2d,
        'norm': nn.BatchNorm2d,
        'act': nn.GELU,
        'mix': nn.Conv2d,
    }

    def __init__(self, layer: ScaleAwareModulation) -> None:
        super().__init__()
        self.v, self.s, self.proj = layer.v, layer.s, layer.proj
        convs = layer.local_convs
        self.sides = convs.kernel_sizes
        heads = range(len(self.sides))
        kernels = [getattr(convs, f'weight{i}').flatten() for i in heads]
        self.kernels = _frozen(torch.cat(kernels))
        biases = [getattr(convs, f'bias{i}') for i in heads]
        self.biases = _frozen(torch.cat(biases))
        matrices, bias = fold_batch_norm(
            layer.expand.weight.flatten(1), layer.expand.bias, layer.norm
        )
        self.matrices, self.matrix_bias = _frozen(matrices), _frozen(bias)
        self.mix_weight = _frozen(layer.mix.weight.flatten(1))
        self.mix_bias = layer.mix.bias

    @classmethod
    def can_replace(cls, module: nn.Module) -> bool:
        return (
            super().can_replace(module)
            and module.norm.running_var is not None
            and not module.norm.training
            and _is_pointwise(module.expand, len(module.local_convs.bias0))
            and _is_pointwise(module.mix, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, C)`` to ``(B, H, W, C)``."""
        s = self.s(x)
        mix = self.mix_weight, self.mix_bias
        parameters = self.kernels, self.biases, self.matrices, self.matrix_bias
        fits = s.ndim == 4 and s.shape[-1] == len(self.biases)
        if fits and kernels.can_run(s, *parameters, *mix):
            hidden = kernels.modulation(s, self.sides, *parameters)
            modulator = kernels.linear(hidden, *mix)
        else:
            modulator = F.linear(self._expand(s), *mix)
        return self.proj(modulator * self.v(x))

    def _expand(self, s: Tensor) -> Tensor:
        c = len(self.biases) // len(self.sides)
        sizes = [c * side**2 for side in self.sides]
        weights = [
            part.view(c, 1, side, side)
            for part, side in zip(self.kernels.split(sizes), self.sides)
        ]
        x = mixed_convolution(s, weights, self.biases.split(c))
        x = F.conv2d(
            x.permute(0, 3, 1, 2),
            self.matrices[..., None, None],
            self.matrix_bias,
            groups=c,
        )
        return F.gelu(x.permute(0, 2, 3, 1))


FUSED = (
    FusedLinear,
    FusedLayerNorm,
    FusedDepthwiseConv,
    FusedMLP,
    FusedConvMLP,
    FusedSelfAttention,
    FusedModulation,
)


def _frozen(x: Tensor) -> nn.Parameter:
    return nn.Parameter(x.detach().contiguous(), requires_grad=False)


def _is_depthwise(conv: nn.Conv2d) -> bool:
    """Whether ``conv`` keeps the size of a map and mixes no channels."""
    side = conv.kernel_size[0]
    return (
        conv.groups == conv.in_channels == conv.out_channels
        and conv.kernel_size == (side, side)
        and side % 2 == 1
        and conv.padding == (side // 2, side // 2)
        and conv.stride == conv.dilation == (1, 1)
        and conv.padding_mode == 'zeros'
    )


def _is_pointwise(conv: nn.Conv2d, groups: int) -> bool:
    return (
        conv.kernel_size == conv.stride == (1, 1)
        and conv.padding == (0, 0)
        and conv.groups == groups
    )
