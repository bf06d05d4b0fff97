"""Count the parameters and multiply-adds of a model, module by module."""

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from mmattn.ops import reference_only

# PyTorch's counter does not know its own fused attention on a CPU.
_CPU_ATTENTION = '_scaled_dot_product_flash_attention_for_cpu'
_FORMULAS: dict[Any, Callable[..., int]] = {}
if hasattr(torch.ops.aten, _CPU_ATTENTION):
    _FORMULAS[getattr(torch.ops.aten, _CPU_ATTENTION)] = (
        lambda q, k, v, *args, **kwargs: sdpa_flop_count(q, k, v)
    )


@dataclass(frozen=True)
class ModuleCost:
    """Cost of one module, its children included.

    Attributes:
        parameters: Number of parameters, frozen ones included.
        multiply_adds: Of one forward pass.
    """

    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Cost(ModuleCost):
    """Cost of a whole model.

    Attributes:
        modules: Cost of each module of the model, by its dotted name, in the
            model's order.
    """

    modules: dict[str, ModuleCost]


def count_cost(model: nn.Module, *inputs: Any) -> Cost:
    """Count one forward pass of a model, in evaluation mode.

    A multiply-add is half of what ``torch.utils.flop_counter`` counts: a FLOP
    in papers and OpenMMLab's tools. Matrix products, convolutions and fused
    attention (both products) count, padding included; sums, elementwise
    operations, softmax, norms, activations and pooling do not. Our operations
    run their reference implementations, with all attention scores in memory.

    The cost of a module is that of its calls. A module that is never called,
    such as a list or a head whose methods are used, costs as much as its
    children.

    Args:
        model: Any module. Its weights, buffers and training modes are
            unchanged afterwards.
        *inputs: Arguments of ``model``.

    Returns:
        The cost of the model and of each of its modules.
    """
    counter = FlopCounterMode(display=False, custom_mapping=_FORMULAS)
    flops: Counter[nn.Module] = Counter()

    def enter(module: nn.Module, args: tuple) -> None:
        flops[module] -= counter.get_total_flops()

    def leave(module: nn.Module, args: tuple, out: Any) -> None:
        flops[module] += counter.get_total_flops()

    modes = {module: module.training for module in model.modules()}
    with ExitStack() as stack:
        for module in modes:
            stack.enter_context(module.register_forward_pre_hook(enter))
            stack.enter_context(module.register_forward_hook(leave))
        stack.enter_context(torch.no_grad())
        # Kernels hide their products from the counter.
        stack.enter_context(reference_only())
        stack.enter_context(counter)
        try:
            model.eval()(*inputs)
        finally:
            for module, mode in modes.items():
                module.training = mode
    costs = {
        name: ModuleCost(
            sum(parameter.numel() for parameter in module.parameters()),
            _flops_of(module, flops) // 2,
        )
        for name, module in model.named_modules()
    }
    whole = costs.pop('')
    return Cost(whole.parameters, counter.get_total_flops() // 2, costs)


def _flops_of(module: nn.Module, flops: Counter[nn.Module]) -> int:
    if module in flops:
        return flops[module]
    return sum(_flops_of(child, flops) for child in module.children())
