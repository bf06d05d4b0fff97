"""Operations whose insides a compiler need not see.

How many windows, levels or clusters there are depends on the size of a map. A
compiler that follows the definition for sizes that vary has to decide such
things for the sizes of its example, and compiles again for others. It takes
an operator as it is instead; what runs inside is chosen in each call.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

_HAS_CUSTOM_OPERATORS = hasattr(torch.library, 'custom_op')

Call = Callable[..., Tensor]


def empty_values(qkv: Tensor, *args: Any) -> Tensor:
    """What an attention gives for queries, keys and values side by side."""
    return qkv.new_empty(*qkv.shape[:-1], qkv.shape[-1] // 3)


def define_operator(
    name: str,
    arguments: str,
    function: Call,
    empty: Call = empty_values,
) -> Call:
    """Make an operator of a function, for compilers.

    Its backward pass computes the function again: it keeps nothing but its
    inputs.

    Args:
        name: Of the operator, ``torch.ops.mmattn.<name>``.
        arguments: What it takes, as in a schema, a tensor first:
            ``'Tensor x, int n, Tensor? y'``.
        function: Takes all of them, returns a tensor. Differentiable in those
            tensors that may require a gradient.
        empty: Takes the same, returns an empty tensor of the shape, dtype and
            device of the result. Defaults to :func:`empty_values`.

    Returns:
        The operator. Without custom operators (torch before 2.4) the
        function itself.
    """
    if not _HAS_CUSTOM_OPERATORS:
        return function
    kinds = arguments.split(', ')
    places = [i for i, kind in enumerate(kinds) if kind.startswith('Tensor')]

    @torch.library.custom_op(
        f'mmattn::{name}', mutates_args=(), schema=f'({arguments}) -> Tensor'
    )
    def forward(*args: Any) -> Tensor:
        with _own_precision(args[0]):
            return _owned(function(*args), args)

    forward.register_fake(empty)

    @torch.library.custom_op(
        f'mmattn::{name}_backward',
        mutates_args=(),
        schema=f'(Tensor grad, int[] wanted, {arguments}) -> Tensor[]',
    )
    def backward(grad: Tensor, wanted: list[int], *args: Any) -> list[Tensor]:
        inputs = list(args)
        with _own_precision(grad), _recorded():
            for i in wanted:
                inputs[i] = inputs[i].detach().requires_grad_()
            grads = torch.autograd.grad(
                function(*inputs),
                [inputs[i] for i in wanted],
                grad,
                materialize_grads=True,
            )
        return [_owned(x, (grad, *args)) for x in grads]

    @backward.register_fake
    def _(grad: Tensor, wanted: list[int], *args: Any) -> list[Tensor]:
        return [args[i].new_empty(args[i].shape) for i in wanted]

    def keep(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*(inputs[i] for i in places))
        ctx.args = [None if i in places else x for i, x in enumerate(inputs)]

    def differentiate(ctx: Any, grad: Tensor) -> tuple:
        args = list(ctx.args)
        for i, x in zip(places, ctx.saved_tensors):
            args[i] = x
        wanted = [i for i in places if ctx.needs_input_grad[i]]
        found = dict(zip(wanted, backward(grad, wanted, *args)))
        return tuple(map(found.get, range(len(args))))

    forward.register_autograd(differentiate, setup_context=keep)
    return forward


def _own_precision(x: Tensor) -> torch.autocast:
    """No autocast: the compiler has already narrowed what comes in."""
    return torch.autocast(x.device.type, enabled=False)


def _owned(out: Tensor, inputs: tuple) -> Tensor:
    """In the layout that was promised, and in memory of its own."""
    out = out.contiguous()
    taken = {
        x.untyped_storage().data_ptr() for x in inputs if isinstance(x, Tensor)
    }
    return out.clone() if out.untyped_storage().data_ptr() in taken else out


@contextmanager
def _recorded() -> Iterator[None]:
    """Let autograd look into an operator, which it never does by itself."""
    key = torch._C.DispatchKey.AutogradFunctionality
    hidden = torch._C._dispatch_tls_is_dispatch_key_excluded(key)
    torch._C._dispatch_tls_set_dispatch_key_excluded(key, False)
    try:
        with torch.enable_grad():
            yield
    finally:
        torch._C._dispatch_tls_set_dispatch_key_excluded(key, hidden)
