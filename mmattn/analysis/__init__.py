"""The cost of models: parameters, multiply-adds, time and memory."""

from .config_cost import build_for_counting, count_config, tested_shape
from .cost import Cost, ModuleCost, count_cost
from .memory import saved_activations
