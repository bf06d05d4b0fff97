"""Inert stand-ins for the classes that training files carry beside tensors.

A training file of mmengine or of the published trainers holds more than
tensors: loss curves, the trainer's arguments, its configuration. torch's
restricted unpickler (``weights_only=True``) refuses such names, and allowing
the real classes would run their code. Only tensors are wanted here, so each
name below is read as a class of this module that takes whatever the file
says about it and keeps nothing. Neither mmengine, numpy nor ``getattr`` is
reached, and every name that is not listed stays refused.
"""

from collections import OrderedDict
from contextlib import AbstractContextManager, nullcontext

import torch

# Who writes them: mmengine's message hub (loss curves as buffers of numpy
# arrays, which name their statistics through getattr), its one-cycle
# schedule, numbers that numpy made, and trainers that keep their command line.
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
# Subclasses of dict: the unpickler fills these item by item, and only
# accepts a few exact types for that.
_MAPPINGS = ('yacs.config.CfgNode',)


class _Object:
    """Takes any arguments and any state, keeps none."""

    def __new__(cls, *args: object) -> '_Object':
        return super().__new__(cls)

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _Mapping:
    """Makes a plain ordered dictionary in its place."""

    def __new__(cls, *args: object) -> OrderedDict:
        return OrderedDict()


def _stand_in(path: str, base: type) -> type:
    # The unpickler looks a name up by these two attributes.
    module, name = path.rsplit('.', 1)
    return type(name, (base,), dict(__module__=module))


_STAND_INS = [_stand_in(path, _Object) for path in _OBJECTS]
_STAND_INS += [_stand_in(path, _Mapping) for path in _MAPPINGS]


def is_lacking(path: str) -> bool:
    """Whether a name has a stand-in that this torch does not take.

    torch before 2.5 takes none: there, files that hold more than tensors are
    refused.
    """
    has_stand_in = path in (*_OBJECTS, *_MAPPINGS)
    return has_stand_in and not hasattr(torch.serialization, 'safe_globals')


def stand_ins() -> AbstractContextManager:
    """Context in which ``torch.load(weights_only=True)`` knows the names."""
    scoped = getattr(torch.serialization, 'safe_globals', None)
    return nullcontext() if scoped is None else scoped(_STAND_INS)
