"""One model on one batch of images: its steps, and what they need."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_flatten

from mmattn.ops import forced_implementations, list_implementations

from .builders import Size
from .cost import Cost, count_cost
from .floor import floor_seconds
from .memory import kept_bytes, moved_bytes
from .operations import Operation, profile_operations
from .subjects import Subject

MODES = ('inference', 'training')
Step = Callable[[], None]


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
        top_operations: How many operations to list for each row.
        with_floor: Time the products of each model by themselves.
    """

    batch: int
    device: torch.device
    dtype: torch.dtype = torch.float32
    with_amp: bool = False
    with_channels_last: bool = False
    compile_mode: str | None = None
    rounds: int = 10
    min_seconds: float = 0.1
    top_operations: int = 0
    with_floor: bool = False


class Trial:
    """A model, built and ready to run on a batch of random images.

    Args:
        subject: Which model.
        size: Height and width of the images, in pixels.
        settings: How to run it.
    """

    def __init__(
        self, subject: Subject, size: Size, settings: Settings
    ) -> None:
        self.subject, self.settings = subject, settings
        model = subject.build(size)
        self.operations = [
            row.operation
            for row in list_implementations()
            if row.name == subject.impl
        ]
        has_any = any(hasattr(module, 'impl') for module in model.modules())
        if self.operations and not has_any:
            raise ValueError(
                f'impl={subject.impl!r} expects attentions of mmattn, got '
                f'{type(model).__name__} without any'
            )
        self.cost = _count(model, size)
        images = torch.rand(settings.batch, 3, *size)
        if not settings.with_amp:
            model.to(settings.dtype)
            images = images.to(settings.dtype)
        if settings.with_channels_last:
            model.to(memory_format=torch.channels_last)
            images = images.contiguous(memory_format=torch.channels_last)
        self.images = images.to(settings.device)
        self.module = self.model = model.to(settings.device)
        if settings.compile_mode is not None:
            self.model = torch.compile(
                self.module, mode=settings.compile_mode, dynamic=False
            )

    def start(self, mode: str) -> Step:
        """Turn to a mode and run its step, which compiles; return the step."""
        self.module.train(mode == 'training')
        step = self.train if mode == 'training' else self.infer
        step()
        return step

    def count_moved(self, step: Step) -> float:
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
        with self._forced():
            return kept_bytes(self._loss, besides) / len(self.images)

    def find_peak(self, step: Step) -> int | None:
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

    def profile(self, step: Step) -> list[Operation]:
        """The operations that take most of a step, if any are asked for."""
        top = self.settings.top_operations
        if not top:
            return []
        return profile_operations(step, self.settings.device, top)

    def find_floor(self) -> float | None:
        """Seconds of the products of a forward pass, if asked for."""
        if not self.settings.with_floor:
            return None
        with self._autocast():
            return floor_seconds(self.module, self.images)

    def infer(self) -> None:
        """One step of inference."""
        with torch.no_grad(), self._autocast(), self._forced():
            self.model(self.images)

    def train(self) -> None:
        """One step of training, up to the gradients."""
        self._drop_gradients()
        with self._forced():  # blocks may run again in the backward pass
            self._loss().backward()

    def _loss(self) -> Tensor:
        with self._autocast():
            out = self.model(self.images)
        means = [
            leaf.float().mean()
            for leaf in tree_flatten(out)[0]
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

    def _forced(self) -> AbstractContextManager[None]:
        """Let operations take what the subject names."""
        return forced_implementations(
            dict.fromkeys(self.operations, self.subject.impl)
        )

    def _constants(self) -> list[Tensor]:
        return [*self.module.parameters(), *self.module.buffers()]

    def _drop_gradients(self) -> None:
        for parameter in self.module.parameters():
            parameter.grad = None


def _count(model: nn.Module, size: Size) -> Cost:
    """The cost of one image; of a model of ours by its shapes alone."""
    is_ours = type(model).__module__.startswith('mmattn.')
    # Definitions hold all scores of an attention: too many to compute.
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake if is_ours else nullcontext():
        return count_cost(model, torch.rand(1, 3, *size))
