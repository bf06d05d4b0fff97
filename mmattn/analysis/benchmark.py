"""Compare the time and memory of models."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import mmattn
from mmattn.export import (
    ONNX_RUNTIMES,
    export_and_load,
    largest_difference,
    output_tensors,
)
from mmattn.ops import forced_implementations, list_implementations

from .memory import saved_activations
from .targets import Size, Target
from .timing import quartiles, time_in_turns

MODES = ('inference', 'training')
RUNTIMES = ('eager', 'optimized', 'compile', *ONNX_RUNTIMES)
TRAINABLE = ('eager', 'compile')
_PAUSE = 0.05  # seconds until the threads of another runtime sleep

Report = Callable[[str], None]
Row = dict[str, str]  # of a table: column to cell


@dataclass(frozen=True)
class Settings:
    """How to measure."""

    batch: int
    device: torch.device
    dtype: torch.dtype = torch.float32  # of images and weights
    amp: bool = False  # float32 weights, autocast to dtype
    runtimes: Sequence[str] = ('eager',)
    rounds: int = 10
    min_seconds: float = 0.2  # a shorter step is repeated within a round


class Run:
    """A target in one runtime, ready for a batch of images."""

    def __init__(
        self,
        target: Target,
        runtime: str,
        module: nn.Module,
        images: Tensor,
        settings: Settings,
    ) -> None:
        self.target, self.runtime, self.settings = target, runtime, settings
        module.eval()  # backbones of mmdet return None
        self.model = self.module = module
        self.images, self.difference = images, ''
        expected = self.infer()
        if runtime != 'eager':
            self.model = _prepare(runtime, module, images)
            difference = largest_difference(expected, self.infer())
            self.difference = f'{difference:.1e}'

    @torch.no_grad()
    def infer(self) -> Any:
        """Run the model on the batch."""
        return self._forward()

    def train(self) -> None:
        """Run a forward and a backward pass."""
        with self._forced():  # checkpointed blocks run again in the backward
            self._loss().backward()

    def saved_bytes(self) -> float:
        """Saved activations of one image; weights and images do not count."""
        saved = saved_activations(self._loss, self._constants())
        return saved / len(self.images)

    def peak_bytes(self, step: Callable[[], Any]) -> int:
        """Peak GPU memory of a step, other models excluded."""
        self.module.zero_grad(set_to_none=True)
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        risen = torch.cuda.max_memory_allocated() - before
        return risen + sum(tensor.nbytes for tensor in self._constants())

    def _loss(self) -> Tensor:
        self.module.zero_grad(set_to_none=True)
        maps = output_tensors(self._forward())
        # The mean would save its input with torch 2.1.
        return sum(
            x.float().sum() / x.numel() for x in maps if x.requires_grad
        )

    def _forward(self) -> Any:
        amp, settings = nullcontext(), self.settings
        if settings.amp:
            amp = torch.autocast(settings.device.type, settings.dtype)
        with amp, self._forced():
            return self.model(self.images)

    def _forced(self) -> AbstractContextManager:
        """Force the implementation of the target on our operations."""
        names = {}
        if self.target.impl is not None:
            for name in ('reference', 'sdpa', self.target.impl):
                for row in list_implementations():
                    if row.name == name:
                        names[row.operation] = name
        return forced_implementations(names)

    def _constants(self) -> list[Tensor]:
        weights = self.module.state_dict(keep_vars=True).values()
        return [*weights, self.images]


def measure(
    targets: Sequence[Target],
    size: Size,
    modes: Sequence[str],
    settings: Settings,
    report: Report = lambda line: None,
) -> tuple[list[Row], list[str]]:
    """Measure every target in every runtime at one size, in turns.

    Args:
        targets: The models; ratios are to the first one, in the first
            runtime.
        size: Height and width of the images, in pixels.
        modes: Some of ``MODES``; only some runtimes can train.
        settings: How to measure.
        report: Called with lines of progress.

    Returns:
        A row of the table for each mode, target and runtime, and an error
        message for each target and runtime that cannot run.

    Raises:
        ValueError: If the first target cannot run in the first runtime.
    """
    where = f'{size[0]} x {size[1]}'
    runs, left_out = [], []
    for target in targets:
        module = None
        for runtime in settings.runtimes:
            name = f'{target.name}, {runtime}, {where}'
            report(f'preparing {name}')
            try:
                if module is None:
                    module, images = _build(target, size, settings)
                runs.append(Run(target, runtime, module, images, settings))
                if runs[-1].difference:
                    report(f'differs from eager by {runs[-1].difference}')
            except Exception as error:  # models and exporters raise anything
                left_out.append(f'{name}: left out, {_explain(error)}')
                report(left_out[-1])
                if not runs:
                    raise ValueError(left_out[-1]) from error
    rows = []
    for mode in sorted(modes):  # inference first, in all runtimes
        if mode == 'training':
            runs = [run for run in runs if run.runtime in TRAINABLE]
        if runs:
            rows += _time(runs, size, mode, settings, report)
    return rows, left_out


def _explain(error: BaseException) -> str:
    """First line of the original error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f'{type(error).__name__}: {error}'.partition('\n')[0]


def _build(
    target: Target, size: Size, settings: Settings
) -> tuple[nn.Module, Tensor]:
    module = target.build(size).to(settings.device)
    images = torch.rand(settings.batch, 3, *size, device=settings.device)
    if settings.amp:
        return module, images
    return module.to(settings.dtype), images.to(settings.dtype)


def _prepare(
    runtime: str, module: nn.Module, images: Tensor
) -> Callable[[Tensor], Any]:
    if runtime == 'optimized':
        return mmattn.optimize_for_inference(module)
    if runtime == 'compile':
        # The limit on compilations of a class counts earlier models.
        torch._dynamo.config.cache_size_limit += len(MODES)
        return torch.compile(module, dynamic=False)
    return export_and_load(module, images, runtime)


def _time(
    runs: Sequence[Run],
    size: Size,
    mode: str,
    settings: Settings,
    report: Report,
) -> Iterator[Row]:
    steps, saved, peaks = {}, {}, {}
    for run in runs:
        run.module.train(mode == 'training')
        step = steps[run] = run.train if mode == 'training' else run.infer
        step()
        saved[run] = peaks[run] = ''
        if mode == 'training':
            saved[run] = f'{run.saved_bytes() / 1e6:.1f}'
        if settings.device.type == 'cuda':
            peaks[run] = f'{run.peak_bytes(step) / 1e9:.2f}'
    timings = time_in_turns(
        steps,
        settings.rounds,
        settings.min_seconds,
        _PAUSE if len(settings.runtimes) > 1 else 0,
        lambda line: report(f'{size[0]} x {size[1]}, {mode}: {line}'),
    )
    for run, rounds in timings.items():
        low, median, high = (1e3 * seconds for seconds in quartiles(rounds))
        ratio = quartiles([x / y for x, y in zip(rounds, timings[runs[0]])])
        parameters = sum(p.numel() for p in run.module.parameters())
        yield {
            'model': run.target.name,
            'runtime': run.runtime,
            'size': f'{size[0]} x {size[1]}',
            'mode': mode,
            'ms (quartiles)': f'{median:.4g} ({low:.4g}-{high:.4g})',
            'ratio (quartiles)': '{1:.3f} ({0:.3f}-{2:.3f})'.format(*ratio),
            'images/s': f'{1e3 * settings.batch / median:.4g}',
            'M parameters': f'{parameters / 1e6:.2f}',
            'MB saved/image': saved[run],
            'GB peak': peaks[run],
            'difference': run.difference,
        }


def to_markdown(rows: Sequence[Row]) -> str:
    """The rows as a table, without columns that are empty."""
    names = [name for name in rows[0] if any(row[name] for row in rows)]
    lines = [names, ['---'] * len(names)]
    lines += [[row[name] for name in names] for row in rows]
    return ''.join(f'| {" | ".join(line)} |\n' for line in lines)
