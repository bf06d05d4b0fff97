"""Count the parameters and the multiply-adds of a model, part by part."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from mmattn.ops import definitions_first


@dataclass(frozen=True)
class ModuleCost:
    """What one module costs, with all that is inside it.

    Attributes:
        parameters: Numbers that training changes or could change.
        multiply_adds: Of one forward pass.
    """

    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Cost(ModuleCost):
    """What a whole model costs.

    Attributes:
        modules: Cost of each module inside the model, by its dotted name, in
            the model's order.
    """

    modules: dict[str, ModuleCost]


def count_cost(model: nn.Module, *inputs: Any) -> Cost:
    """Count one forward pass of a model, in evaluation mode.

    A multiply-add is half of what ``torch.utils.flop_counter`` counts: what
    papers and OpenMMLab's tools call a FLOP. Counted are matrix products,
    convolutions of any groups and fused attention (both of its products), as
    they run, padding included. Our operations run as they are defined, with
    all scores of an attention in memory. Left out are sums, products by
    element, softmax, norms, activations and pooling.

    A module costs what runs between its call and its return. One that is
    used without a call, such as a list or a head of which a method is taken,
    costs as much as its parts.

    Args:
        model: Any module. Its weights, buffers and modes are the same
            afterwards.
        *inputs: What ``model`` is called with.

    Returns:
        The cost of the model and of each of its modules.
    """
    counter = FlopCounterMode(
        display=False, custom_mapping=_missing_formulas()
    )
    with (
        _evaluation(model),
        _flops_by_module(model, counter) as flops,
        torch.no_grad(),
        # Faster ones hide their products in kernels, or multiply by zeros.
        definitions_first(),
        counter,
    ):
        model(*inputs)
    return Cost(
        _count_parameters(model),
        counter.get_total_flops() // 2,
        {
            name: ModuleCost(
                _count_parameters(module), _flops_of(module, flops) // 2
            )
            for name, module in model.named_modules()
            if name
        },
    )


@contextmanager
def _evaluation(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def _flops_by_module(
    model: nn.Module, counter: FlopCounterMode
) -> Iterator[Counter[nn.Module]]:
    """Add up what the counter counts during the calls of each module."""
    flops: Counter[nn.Module] = Counter()

    def enter(module: nn.Module, args: tuple) -> None:
        flops[module] -= counter.get_total_flops()

    def leave(module: nn.Module, args: tuple, out: Any) -> None:
        flops[module] += counter.get_total_flops()

    hooks = [
        hook
        for module in model.modules()
        for hook in (
            module.register_forward_pre_hook(enter),
            module.register_forward_hook(leave),
        )
    ]
    try:
        yield flops
    finally:
        for hook in hooks:
            hook.remove()


def _flops_of(module: nn.Module, flops: Counter[nn.Module]) -> int:
    if module in flops:
        return flops[module]
    return sum(_flops_of(child, flops) for child in module.children())


def _count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _missing_formulas() -> dict[Any, Callable[..., int]]:
    """Formulas for what PyTorch's counter takes for free."""
    formulas = {
        'aten::_scaled_dot_product_flash_attention_for_cpu': _count_attention,
        'mkldnn::_convolution_pointwise': _count_products,
        'mkldnn::_linear_pointwise': _count_products,
    }
    found = {}
    for name, formula in formulas.items():
        scope, _, operator = name.partition('::')
        packet = getattr(getattr(torch.ops, scope), operator, None)
        if packet is not None:
            found[packet] = formula
    return found


def _count_attention(
    query: torch.Size, key: torch.Size, value: torch.Size, *args, **kwargs
) -> int:
    return sdpa_flop_count(query, key, value)


def _count_products(
    x: torch.Size, weight: torch.Size, *args, out_shape: torch.Size, **kwargs
) -> int:
    """Of a linear layer or convolution: a row of the weight per output."""
    return 2 * math.prod(out_shape) * math.prod(weight[1:])
