"""Whether the weights of a layer say all that a call of it does."""

from torch import nn
from torch.nn.modules import module

# Registered for all modules; the dictionaries stay the same ones.
_GLOBAL_HOOKS = (
    module._global_forward_pre_hooks,
    module._global_forward_hooks,
    module._global_backward_pre_hooks,
    module._global_backward_hooks,
)


def is_plain(layer: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a call of a layer would run the code of ``kind`` alone.

    So that who has its weights may leave out the call. False for what has
    taken the place of a layer, an adapter say, for one whose ``forward`` was
    replaced, and for one with hooks.
    """
    hooked = (
        layer._forward_hooks
        or layer._forward_pre_hooks
        or layer._backward_hooks
        or layer._backward_pre_hooks
        or any(_GLOBAL_HOOKS)
    )
    own_code = type(layer) is kind and 'forward' not in vars(layer)
    return own_code and not hooked
