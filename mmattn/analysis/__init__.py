"""What models cost: parameters, multiply-adds, time and memory."""

from .cost import Cost, ModuleCost, count_cost
from .host_model import build_for_counting, count_config
from .input_size import tested_shape

__all__ = [
    'Cost',
    'ModuleCost',
    'build_for_counting',
    'count_config',
    'count_cost',
    'tested_shape',
]
