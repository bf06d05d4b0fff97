"""What models cost: parameters, multiply-adds, time and memory.

Only what is asked for is imported: single operations are measured where torch
is alone.
"""

import importlib
from typing import Any

_HOMES = {
    'Cost': 'cost',
    'ModuleCost': 'cost',
    'build_for_counting': 'host_model',
    'count_config': 'host_model',
    'count_cost': 'cost',
    'tested_shape': 'input_size',
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(importlib.import_module(f'.{_HOMES[name]}', __name__), name)
