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
_MAPPINGS = ('yacs.config.CfgNode',)


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
_STUBS += [_make_stub(path, _Mapping) for path in _MAPPINGS]


# What torch itself allows with `weights_only=True`, without special tensors.
_TORCH = re.compile(
    r'torch\.(_utils\._rebuild_\w+|_tensor\._rebuild_from_type_v2|(storage\.)?'
    r'\w*Storage|Tensor|Size|device|nn\.parameter\.Parameter)|collections\.(OrderedDict|Counter)|_codecs\.encode|builtins\.(complex|'
    r'set)'
)


def is_allowed(path: str) -> bool:
    """Whether a class may be named by a checkpoint."""
    is_dtype = isinstance(getattr(torch, path[6:], None), torch.dtype)
    has_stub = path in (*_OBJECTS, *_MAPPINGS)
    return has_stub or is_dtype or bool(_TORCH.fullmatch(path))


def needs_newer_torch(path: str) -> bool:
    """Whether a class has a stub that this torch cannot use.

    torch before 2.5 has no ``safe_globals``, so checkpoints that hold more
    than tensors cannot be read there.
    """
    has_stub = path in (*_OBJECTS, *_MAPPINGS)
    return has_stub and not hasattr(torch.serialization, 'safe_globals')


def allow_stubs() -> AbstractContextManager:
    """Context in which ``torch.load(weights_only=True)`` uses the stubs."""
    safe_globals = getattr(torch.serialization, 'safe_globals', None)
    return nullcontext() if safe_globals is None else safe_globals(_STUBS)
