"""Measure models side by side: time, memory and cost of each at each size."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from .builders import ModelTypeError, Size
from .failures import describe_failure, find_own_frame
from .operations import Operation
from .subjects import Subject
from .timing import Spread, spread_of, spread_of_ratios, time_in_turns
from .trial import Settings, Trial

# A backward pass multiplies twice as much as its forward pass.
_PASSES = {'inference': 1, 'training': 3}
_TOKEN_SIDE = 4
# What a model raises that cannot run as it was asked for.
_EXPECTED = (AssertionError, ModelTypeError, RuntimeError, ValueError)

Report = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """What was measured of one model at one size in one mode.

    Attributes:
        model: Its name.
        height, width: Of the images, in pixels.
        tokens: Of one image, at stride 4.
        mode: ``'inference'`` or ``'training'``.
        seconds: Of one step.
        ratio: Of the seconds to those of the first model, round by round.
        cpu_seconds: Of one step, of all threads on the CPU.
        cpu_ratio: Of these to those of the first model, round by round.
        rounds: Seconds of each round.
        parameters: Of the model as it was measured.
        multiply_adds: Of the forward pass of one image.
        flops: Of one step: two for each multiply-add, and in training three
            times those of the forward pass.
        moved_bytes: What the operations of a step read and write for one
            image, before compiling.
        kept_bytes: What the forward pass of one image keeps for the backward
            pass, without parameters and buffers; None in inference.
        peak_bytes: Most memory of the GPU during a step, weights, images and
            gradients included; None on the CPU.
        operations: That take most of a step, as many as asked for.
        floor_seconds: Of the products of a step alone, see
            :func:`.floor.floor_seconds`; None if not asked for.
    """

    model: str
    height: int
    width: int
    tokens: int
    mode: str
    seconds: Spread
    ratio: Spread
    cpu_seconds: Spread
    cpu_ratio: Spread
    rounds: list[float]
    parameters: int
    multiply_adds: int
    flops: int
    moved_bytes: float
    kept_bytes: float | None
    peak_bytes: int | None
    operations: list[Operation]
    floor_seconds: float | None = None


def compare(
    subjects: Sequence[Subject],
    size: Size,
    modes: Sequence[str],
    settings: Settings,
    report: Report = lambda line: None,
) -> list[Row]:
    """Measure models at one size, all in turns.

    Args:
        subjects: The models; the first one is what the others are compared
            with.
        size: Height and width of the images, in pixels.
        modes: ``'inference'``, ``'training'`` or both.
        settings: How to measure.
        report: Takes a line of progress.

    Returns:
        A row for each mode and model.

    Raises:
        ValueError: If a model cannot take the size, runs out of memory, or
            is a user's own and fails.
    """
    trials = {}
    for subject in subjects:
        report(f'{size[0]} x {size[1]}: building {subject.name}')
        with _explained(subject, size, settings):
            trials[subject.name] = Trial(subject, size, settings)
    rows = []
    with _room_to_compile(len(subjects) * len(modes)):
        for mode in modes:
            rows += _compare_mode(trials, size, mode, settings, report)
    return rows


@contextmanager
def _room_to_compile(number: int) -> Iterator[None]:
    """Let models of one class be compiled once each, for this size alone.

    PyTorch gives up on code that it has compiled some times, and runs it
    uncompiled; and a second size makes it compile for all sizes.
    """
    torch.compiler.reset()
    config = torch._dynamo.config
    with config.patch(cache_size_limit=config.cache_size_limit + number):
        yield


def _compare_mode(
    trials: dict[str, Trial],
    size: Size,
    mode: str,
    settings: Settings,
    report: Report,
) -> list[Row]:
    calls, moved, kept, peaks, floors = {}, {}, {}, {}, {}
    H, W = size
    for name, trial in trials.items():
        report(f'{H} x {W}, {mode}: preparing {name}')
        with _explained(trial.subject, size, settings):
            calls[name] = trial.start(mode)
            moved[name] = trial.count_moved(calls[name])
            kept[name] = trial.count_kept() if mode == 'training' else None
            peaks[name] = trial.find_peak(calls[name])
            floors[name] = trial.find_floor()
    laps = time_in_turns(
        calls,
        settings.rounds,
        settings.min_seconds,
        lambda line: report(f'{H} x {W}, {mode}: {line}'),
    )
    times = {name: list(zip(*laps[name])) for name in laps}
    first, cpu_first = next(iter(times.values()))
    rows = []
    for name, trial in trials.items():
        seconds, cpu_seconds = times[name]
        if settings.top_operations:
            report(f'{H} x {W}, {mode}: profiling {name}')
        flops = 2 * trial.cost.multiply_adds * _PASSES[mode] * settings.batch
        rows.append(
            Row(
                name,
                H,
                W,
                math.ceil(H / _TOKEN_SIDE) * math.ceil(W / _TOKEN_SIDE),
                mode,
                spread_of(seconds),
                spread_of_ratios(seconds, first),
                spread_of(cpu_seconds),
                spread_of_ratios(cpu_seconds, cpu_first),
                list(seconds),
                trial.cost.parameters,
                trial.cost.multiply_adds,
                flops,
                moved[name],
                kept[name],
                peaks[name],
                trial.profile(calls[name]),
                floors[name] and floors[name] * _PASSES[mode],
            )
        )
    return rows


@contextmanager
def _explained(
    subject: Subject, size: Size, settings: Settings
) -> Iterator[None]:
    """Tell which model it was that failed, and where."""
    H, W = size
    where = f'{subject.name} at {H} x {W}, batch {settings.batch}'
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise ValueError(
            f'{where}: {settings.device} has too little memory; lower '
            '--batch, or take the size out of --sizes'
        ) from error
    except (Exception, SystemExit) as error:  # whatever a user's code does
        if not isinstance(error, _EXPECTED) and find_own_frame(error) is None:
            raise
        raise ValueError(
            f'{where}: cannot run: {describe_failure(error)}'
        ) from error
