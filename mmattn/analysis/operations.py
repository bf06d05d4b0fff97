"""Which operations a step spends its time in."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

_STEPS = 3


class Operation(NamedTuple):
    """What all calls of one operation take together, in a step.

    Attributes:
        name: The profiler's; of a kernel on a GPU.
        calls: How many.
        seconds: Without what they call themselves.
        share: Of the seconds of all operations.
    """

    name: str
    calls: int
    seconds: float
    share: float


def profile_operations(
    step: Callable[[], Any], device: torch.device, top: int
) -> list[Operation]:
    """Run a step under the profiler.

    Args:
        step: What to run, already warm; it runs three times.
        device: Whose time counts.
        top: How many operations to return.

    Returns:
        Those that take most, longest first.
    """
    is_cpu = device.type == 'cpu'
    activities = [ProfilerActivity.CPU]
    if not is_cpu:
        activities.append(ProfilerActivity.CUDA)
    with warnings.catch_warnings():
        # That a second profile forgets the first is what is wanted.
        warnings.simplefilter('ignore')
        with profile(activities=activities) as profiler:
            for _ in range(_STEPS):
                step()
            if not is_cpu:
                torch.cuda.synchronize()
    found = [
        (
            event.key,
            event.count // _STEPS,
            _microseconds(event, is_cpu) / 1e6 / _STEPS,
        )
        for event in profiler.key_averages()
        # On a GPU the kernels themselves, not the operations that ran them.
        if (event.device_type == DeviceType.CPU) == is_cpu
        and not _is_annotation(event)
    ]
    total = sum(seconds for *_, seconds in found) or 1.0
    found.sort(key=lambda row: -row[2])
    return [Operation(*row, row[2] / total) for row in found[:top]]


def _is_annotation(event: Any) -> bool:
    """Whether it is a part of the program, and no operation or kernel."""
    is_ours = event.key.startswith('mmattn::')
    return getattr(event, 'is_user_annotation', False) and not is_ours


def _microseconds(event: Any, is_cpu: bool) -> float:
    if is_cpu:
        return event.self_cpu_time_total
    if hasattr(event, 'self_device_time_total'):
        return event.self_device_time_total
    return event.self_cuda_time_total  # torch before 2.4
