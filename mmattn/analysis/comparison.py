"""Measure models side by side: time, memory and cost of each at each size."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from .cost import count_cost
from .memory import kept_bytes, moved_bytes
from .subjects import Size, Subject
from .timing import Spread, spread_of, spread_of_ratios, time_in_turns

MODES = ('inference', 'training')
DTYPES = {
    'float32': torch.float32,
    'bfloat16': torch.bfloat16,
    'float16': torch.float16,
}
# A backward pass multiplies twice as much as its forward pass.
_PASSES = {'inference': 1, 'training': 3}
_TOKEN_SIDE = 4

Report = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        batch: Images in one step.
        device: Where.
        dtype: Of the images and, without ``with_amp``, of the weights.
        with_amp: Float32 weights, autocast to ``dtype``.
        with_channels_last: Images and weights in memory order NHWC.
        compile_mode: Mode of ``torch.compile``, or None for eager.
        rounds: Measurements of each model.
        min_seconds: A shorter step is repeated within a round.
    """

    batch: int
    device: torch.device
    dtype: torch.dtype = torch.float32
    with_amp: bool = False
    with_channels_last: bool = False
    compile_mode: str | None = None
    rounds: int = 10
    min_seconds: float = 0.1


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
        modes: Of ``MODES``.
        settings: How to measure.
        report: Takes a line of progress.

    Returns:
        A row for each mode and model.

    Raises:
        ValueError: If a model cannot take the size, or runs out of memory.
    """
    torch.compiler.reset()  # sizes must not make each other dynamic
    images = torch.rand(settings.batch, 3, *size, device=settings.device)
    if not settings.with_amp:
        images = images.to(settings.dtype)
    if settings.with_channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    trials = {}
    for subject in subjects:
        with _explained(subject, size, settings):
            trials[subject.name] = _Trial(subject, images, settings)
    rows = []
    for mode in modes:
        rows += _compare_mode(trials, mode, settings, report)
    return rows


def _compare_mode(
    trials: dict[str, '_Trial'],
    mode: str,
    settings: Settings,
    report: Report,
) -> list[Row]:
    calls, moved, kept, peaks = {}, {}, {}, {}
    for name, trial in trials.items():
        with _explained(trial.subject, trial.size, settings):
            calls[name] = trial.start(mode)
            moved[name] = trial.count_moved(calls[name])
            kept[name] = trial.count_kept() if mode == 'training' else None
            peaks[name] = trial.find_peak(calls[name])
    H, W = next(iter(trials.values())).size
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
            )
        )
    return rows


class _Trial:
    """One model on one batch of images."""

    def __init__(
        self, subject: Subject, images: Tensor, settings: Settings
    ) -> None:
        self.subject, self.images, self.settings = subject, images, settings
        self.size = tuple(images.shape[2:])
        model = subject.build(self.size)
        self.cost = count_cost(model, torch.rand(1, 3, *self.size))
        if not settings.with_amp:
            model.to(settings.dtype)
        if settings.with_channels_last:
            model.to(memory_format=torch.channels_last)
        self.module = self.model = model.to(settings.device)
        if settings.compile_mode is not None:
            self.model = torch.compile(
                self.module, mode=settings.compile_mode, dynamic=False
            )

    def start(self, mode: str) -> Callable[[], None]:
        """Turn to a mode and run its step, which compiles; return the step."""
        self.module.train(mode == 'training')
        step = self.train if mode == 'training' else self.infer
        step()
        return step

    def count_moved(self, step: Callable[[], None]) -> float:
        """Bytes that the operations of a step move for one image."""
        self.model, measured = self.module, self.model
        try:
            return moved_bytes(step) / len(self.images)
        finally:
            self.model = measured

    def count_kept(self) -> float:
        """Bytes that one image's forward pass keeps for the backward pass."""
        self._drop_gradients()
        besides = [*self._constants(), self.images]
        return kept_bytes(self._loss, besides) / len(self.images)

    def find_peak(self, step: Callable[[], None]) -> int | None:
        """Most bytes of the GPU during a step, as if alone in the process."""
        if self.settings.device.type != 'cuda':
            return None
        self._drop_gradients()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        risen = torch.cuda.max_memory_allocated() - before
        self._drop_gradients()
        own = [*self._constants(), self.images]
        return risen + sum(tensor.nbytes for tensor in own)

    def infer(self) -> None:
        with torch.no_grad(), self._autocast():
            self.model(self.images)

    def train(self) -> None:
        self._drop_gradients()
        self._loss().backward()

    def _loss(self) -> Tensor:
        with self._autocast():
            out = self.model(self.images)
        means = [
            leaf.float().mean()
            for leaf in tree_leaves(out)
            if isinstance(leaf, Tensor) and leaf.requires_grad
        ]
        if not means:
            raise ValueError('it returns no tensor that has a gradient')
        return sum(means)

    def _autocast(self) -> Any:
        settings = self.settings
        if not settings.with_amp:
            return nullcontext()
        return torch.autocast(settings.device.type, settings.dtype)

    def _constants(self) -> list[Tensor]:
        return [*self.module.parameters(), *self.module.buffers()]

    def _drop_gradients(self) -> None:
        for parameter in self.module.parameters():
            parameter.grad = None


@contextmanager
def _explained(
    subject: Subject, size: Size, settings: Settings
) -> Iterator[None]:
    """Tell which model it was that failed, and where."""
    H, W = size
    where = f'{subject.name} at {H} x {W}, batch {settings.batch}'
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ValueError(
            f'{where}: {settings.device} has too little memory; lower '
            '--batch, or take the size out of --sizes'
        ) from error
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ValueError(
            f'{where}: cannot run: {type(error).__name__}: {error}'
        ) from error
