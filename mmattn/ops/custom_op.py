"""Make an autograd function and a custom operator of one kernel.

Eager mode calls the autograd function, whose overhead is a third of that of a
custom operator. Compilers call the operator.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from .dispatch import find_implementation, register_implementation

_HAS_CUSTOM_OPS = hasattr(torch.library, 'custom_op')

Tensors = Sequence[Tensor]


def empty_like_values(qkv: Tensor, *args: Any) -> list[Tensor]:
    """Uninitialized result of attention on queries, keys and values."""
    return [qkv.new_empty(*qkv.shape[:-1], qkv.shape[-1] // 3)]


class Kernel(NamedTuple):
    """Both entries of a kernel; see :func:`define_kernel`.

    Attributes:
        function: For eager mode.
        operator: For compilers, ``torch.ops.mmattn.<name>``; None before
            torch 2.4.
    """

    function: Callable[..., Tensor]
    operator: Callable[..., Tensor] | None


def define_kernel(
    name: str,
    arguments: str,
    forward: Callable[..., Tensors],
    backward: Callable[..., Sequence[Tensor | None]],
    empty: Callable[..., Tensors],
    reference: Callable[..., Tensor],
) -> Kernel:
    """Make a kernel differentiable, for eager mode and for compilers.

    Args:
        name: Name of the operator.
        arguments: Schema of the arguments, a tensor first:
            ``'Tensor x, int n, Tensor? y'``.
        forward: Maps the arguments to the result and to other tensors for the
            backward pass, all new and contiguous.
        backward: Called with the gradient of the result, the other tensors,
            for each tensor among the arguments whether its gradient is
            needed, and all arguments. Returns the gradients of these tensors,
            None where none is needed.
        empty: Maps the arguments to uninitialized results of ``forward``.
        reference: Computes the same with operations of PyTorch, for gradients
            of gradients.
    """
    kinds = arguments.split(', ')
    places = [i for i, kind in enumerate(kinds) if kind.startswith('Tensor')]

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx: FunctionCtx, *args: Any) -> Tensor:
            out, *kept = forward(*args)
            _save(ctx, args, kept)
            return out

        @staticmethod
        def backward(ctx: FunctionCtx, grad: Tensor) -> tuple:
            args, kept = _restore(ctx)
            wanted = [ctx.needs_input_grad[i] for i in places]
            # With create_graph, or for a batch of gradients.
            if torch.is_grad_enabled() or not torch._C._has_storage(grad):
                found = _differentiate(reference, args, places, wanted, grad)
            else:
                found = backward(_plain(grad), kept, wanted, *args)
            return _spread(found, places, len(args))

    def _save(ctx: FunctionCtx, args: tuple, kept: Tensors) -> None:
        ctx.save_for_backward(*kept, *(args[i] for i in places))
        ctx.options = [None if i in places else x for i, x in enumerate(args)]

    def _restore(ctx: FunctionCtx) -> tuple[list, list]:
        saved, args = ctx.saved_tensors, list(ctx.options)
        first = len(saved) - len(places)
        for i, x in zip(places, saved[first:]):
            args[i] = x
        return args, list(saved[:first])

    def function(*args: Any) -> Tensor:
        if torch.is_grad_enabled():
            for i in places:
                if args[i] is not None and args[i].requires_grad:
                    return Function.apply(*args)
        return forward(*args)[0]

    if not _HAS_CUSTOM_OPS:
        return Kernel(function, None)

    @torch.library.custom_op(
        f'mmattn::{name}', mutates_args=(), schema=f'({arguments}) -> Tensor[]'
    )
    def operator(*args: Any) -> list[Tensor]:
        return list(forward(*args))

    operator.register_fake(lambda *args: list(empty(*args)))

    @torch.library.custom_op(
        f'mmattn::{name}_backward',
        mutates_args=(),
        schema=f'(Tensor grad, Tensor[] kept, bool[] wanted, {arguments}) '
        '-> Tensor[]',
    )
    def operator_backward(
        grad: Tensor, kept: list[Tensor], wanted: list[bool], *args: Any
    ) -> list[Tensor]:
        found = backward(_plain(grad), kept, wanted, *args)
        return [x for x, want in zip(found, wanted) if want]

    @operator_backward.register_fake
    def _(
        grad: Tensor, kept: list[Tensor], wanted: list[bool], *args: Any
    ) -> list[Tensor]:
        return [
            args[i].new_empty(args[i].shape)
            for i, want in zip(places, wanted)
            if want
        ]

    def set_up(ctx: FunctionCtx, inputs: tuple, output: list[Tensor]) -> None:
        _save(ctx, inputs, output[1:])

    def differentiate(ctx: FunctionCtx, grads: list[Tensor]) -> tuple:
        args, kept = _restore(ctx)
        wanted = [ctx.needs_input_grad[i] for i in places]
        found = iter(operator_backward(grads[0], kept, wanted, *args))
        found = [next(found) if want else None for want in wanted]
        return _spread(found, places, len(args))

    operator.register_autograd(differentiate, setup_context=set_up)
    return Kernel(function, lambda *args: operator(*args)[0])


def define_operator(
    name: str,
    arguments: str,
    forward: Callable[..., Tensor],
    empty: Callable[..., Tensor],
) -> Callable[..., Tensor] | None:
    """An operator without gradient, for compilers; None before torch 2.4."""
    if not _HAS_CUSTOM_OPS:
        return None
    operator = torch.library.custom_op(
        f'mmattn::{name}',
        forward,
        mutates_args=(),
        schema=f'({arguments}) -> Tensor',
    )
    operator.register_fake(empty)
    return operator


def register_kernel(
    operation: str,
    arguments: str,
    forward: Callable[..., Any],
    backward: Callable[..., Sequence[Tensor | None]] | None,
    why_not: Callable[..., str | None],
    *,
    name: str,
    empty: Callable[..., Any] = empty_like_values,
    reference: Callable[..., Tensor] | None = None,
    prepare: Callable[..., tuple] | None = None,
    **options: Any,
) -> None:
    """Register a kernel as an implementation of an operation.

    Args:
        operation: Name of the operation.
        arguments, forward, backward, empty: See :func:`define_kernel`.
            Without a backward function there is no gradient, and ``forward``
            and ``empty`` return one tensor.
        why_not: See :class:`Implementation`.
        name: Name of the implementation.
        reference: See :func:`define_kernel`. Defaults to the operation's.
        prepare: Maps the arguments of the operation to those of the kernel.
            Defaults to None: they are the same.
        **options: Other fields of :class:`Implementation`.
    """
    key = f'{operation}_{name}'
    if backward is None:
        operator = define_operator(key, arguments, forward, empty)
        kernel = Kernel(forward, operator)
    else:
        if reference is None:
            reference = find_implementation(operation, 'reference').function
        kernel = define_kernel(
            key, arguments, forward, backward, empty, reference
        )
    if prepare is not None:
        plain = kernel
        kernel = Kernel(
            lambda *args: plain.function(*prepare(*args)),
            lambda *args: plain.operator(*prepare(*args)),
        )
    register_implementation(
        operation,
        name,
        why_not=why_not,
        is_kernel=True,
        operator=kernel.operator,
        **options,
    )(kernel.function)


def _spread(
    found: Sequence[Tensor | None], places: Sequence[int], count: int
) -> tuple[Tensor | None, ...]:
    """Gradients of all arguments, from those of the tensors."""
    grads: list[Tensor | None] = [None] * count
    for i, grad in zip(places, found):
        grads[i] = grad
    return tuple(grads)


def _plain(grad: Tensor) -> Tensor:
    """A contiguous gradient that is not a lazy negation or zero."""
    if grad.is_neg() or grad._is_zerotensor():
        grad = grad.clone()
    return grad.contiguous()


def _differentiate(
    reference: Callable[..., Tensor],
    args: list,
    places: Sequence[int],
    wanted: Sequence[bool],
    grad: Tensor,
) -> list[Tensor | None]:
    """Differentiable gradients, by operations of PyTorch."""
    create_graph = torch.is_grad_enabled()
    inputs = [args[i] for i, want in zip(places, wanted) if want]
    with torch.enable_grad():
        out = reference(*args)
    found = iter(
        torch.autograd.grad(out, inputs, grad, create_graph=create_graph)
    )
    return [next(found) if want else None for want in wanted]
