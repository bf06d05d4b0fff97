"""Stubs for the classes that training checkpoints pickle beside tensors.

A training checkpoint of mmengine or of the published trainers also holds loss
curves, command-line arguments and configs. torch's restricted unpickler
(``weights_only=True``) rejects these classes, and allowing the real ones would
run their code. Only the tensors matter here, so each class below is replaced
by an inert stub that accepts any arguments and keeps nothing. mmengine, numpy
and ``getattr`` are never reached, and unlisted names stay rejected.
"""

import re
from collections import OrderedDict
from contextlib import AbstractContextManager, nullcontext

import torch

# Written by mmengine's message hub (loss curves as buffers of numpy arrays,
# whose statistics are looked up with getattr), its one-cycle schedule, numpy
# scalars, and trainers that save their command line.
_OBJECTS = (
    'mmengine.logging.history_buffer.HistoryBuffer',
    'mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler',
    'builtins.getattr',
    'builtins.slice',
    'numpy.ndarray',
    'numpy.dtype',
    'numpy.core.multiarray._reconstruct',
    'numpy.core.multiarray.scalar',
    'numpy._core.multiarray._reconstruct',
    'numpy._core.multiarray.scalar',
    'argparse.Namespace',
)
# Subclasses of dict: the unpickler fills these item by item, and accepts only
# a few exact types for that.
MAPPINGS = ('yacs.config.CfgNode',)


class _Object:
    """Accepts any arguments and any state, keeps none."""

    def __new__(cls, *args: object) -> '_Object':
        return super().__new__(cls)

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _Mapping:
    """Creates a plain OrderedDict instead of itself."""

    def __new__(cls, *args: object) -> OrderedDict:
        return OrderedDict()


def _make_stub(path: str, base: type) -> type:
    # The unpickler looks a class up by these two attributes.
    module, name = path.rsplit('.', 1)
    return type(name, (base,), dict(__module__=module))


_STUBS = [_make_stub(path, _Object) for path in _OBJECTS]
_STUBS += [_make_stub(path, _Mapping) for path in MAPPINGS]


# What torch itself allows with `weights_only=True`, without special tensors.
_TORCH = re.compile(
    r'torch\._utils\._rebuild_(tensor(_v2|_v3)?|parameter(_with_state)?)'
    r'|torch\.(_tensor\._rebuild_from_type_v2|(storage\.)?\w*Storage|Tensor)'
    r'|torch\.(Size|device|nn\.parameter\.Parameter)|_codecs\.encode'
    r'|collections\.(OrderedDict|Counter)|builtins\.(complex|set)'
)


def is_allowed(path: str) -> bool:
    """Whether a checkpoint may name a class or function.

    It may name those with a stub, those that torch allows, and those added
    with ``torch.serialization.add_safe_globals``.
    """
    added = getattr(torch.serialization, 'get_safe_globals', list)()
    return (
        path in (*_OBJECTS, *MAPPINGS)
        or isinstance(getattr(torch, path[6:], None), torch.dtype)
        or bool(_TORCH.fullmatch(path))
        or any(
            path == f'{x.__module__}.{x.__qualname__}'
            for x in added
            if not isinstance(x, tuple)
        )
    )


def allow_stubs() -> AbstractContextManager:
    """Context in which ``torch.load(weights_only=True)`` uses the stubs."""
    safe_globals = getattr(torch.serialization, 'safe_globals', None)
    return nullcontext() if safe_globals is None else safe_globals(_STUBS)
