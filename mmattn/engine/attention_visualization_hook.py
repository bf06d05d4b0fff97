"""Pictures of the attention during validation and testing."""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.visualization import LocalVisBackend
from PIL import Image

from mmattn.registry import HOOKS
from mmattn.visualization.attention import (
    CallRecorder,
    NetworkImage,
    select_layers,
    show_inputs,
    write_page,
)


@HOOKS.register_module()
class AttentionVisualizationHook(Hook):
    """Draw what the attention does with every n-th image that is evaluated.

    The pictures of an image, and a page that shows them, go to
    ``attention/val_STEP/IMAGE`` (in a test ``attention/test/IMAGE``) in the
    folder of the run's logs; the visualizer's other backends, such as
    TensorBoard, get the pictures too. In a distributed run the first process
    draws, and counts its own images.

    Args:
        interval (int): Images from one that is drawn to the next. The first
            of each evaluation is drawn. Defaults to 500.
        stages (Sequence[int], optional): Stages of the backbone to show, -1
            for the last. Defaults to None, all, and layers outside of them.
        blocks (Sequence[int], optional): Blocks of each stage to show, -1
            for the last. Defaults to None, all.
        places (Sequence[tuple]): Where the shown tokens lie, as parts of the
            height and of the width of the image. Defaults to two on the
            diagonal.
        max_heads (int): Heads of a layer to show. Defaults to 4, spread
            evenly.
    """

    priority = 'NORMAL'

    def __init__(
        self,
        interval: int = 500,
        stages: Collection[int] | None = None,
        blocks: Collection[int] | None = None,
        places: Sequence[tuple[float, float]] = ((0.33, 0.33), (0.67, 0.67)),
        max_heads: int = 4,
    ) -> None:
        if interval < 1 or max_heads < 1:
            raise ValueError(
                'AttentionVisualizationHook expects interval and max_heads '
                f'>= 1, got {interval=}, {max_heads=}'
            )
        if not places or not all(
            len(place) == 2 and all(0 <= part < 1 for part in place)
            for place in places
        ):
            raise ValueError(
                'AttentionVisualizationHook expects places as parts of the '
                'height and of the width, from 0 to below 1, got '
                f'{places}'
            )
        self.interval = interval
        self.stages = stages
        self.blocks = blocks
        self.places = places
        self.max_heads = max_heads
        self._count = 0
        self._layers: dict[str, torch.nn.Module] = {}
        self._recorder: CallRecorder | None = None

    def before_run(self, runner: Runner) -> None:
        """Find the layers, before any time is spent.

        Raises:
            ValueError: If the model has none that can be drawn, or not in
                these stages and blocks.
        """
        self._layers = select_layers(runner.model, self.stages, self.blocks)

    def before_val_epoch(self, runner: Runner) -> None:
        """Count the images from the start."""
        self._count = 0

    def before_test_epoch(self, runner: Runner) -> None:
        """Count the images from the start."""
        self._count = 0

    def before_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Listen to the layers, where an image of the batch is drawn."""
        if self._due(data_batch) and is_main_process():
            self._recorder = CallRecorder(runner.model, self._layers)
            self._recorder.__enter__()

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence | None = None,
    ) -> None:
        """Draw the images of the batch whose turn it is."""
        self._draw(runner, data_batch, f'val_{runner.iter}')

    def before_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """As in validation."""
        self.before_val_iter(runner, batch_idx, data_batch)

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence | None = None,
    ) -> None:
        """As in validation."""
        self._draw(runner, data_batch, 'test')

    def _due(self, batch: dict) -> list[int]:
        """Which images of a batch are drawn."""
        count = len(_images(batch))
        return list(range(-self._count % self.interval, count, self.interval))

    def _draw(self, runner: Runner, batch: dict, step: str) -> None:
        due, start = self._due(batch), self._count
        self._count += len(_images(batch))
        if self._recorder is None:
            return
        recorder, self._recorder = self._recorder, None
        recorder.__exit__()
        for index in due:
            name = str(start + index)
            path = batch['data_samples'][index].get('img_path')
            if path:
                name += f'_{Path(path).stem}'
            folder = Path(runner.log_dir, 'attention', step, name)
            inputs = _images(batch)[index]
            size = recorder.image_size
            filled = tuple(map(min, size, inputs.shape[-2:]))
            image = NetworkImage(show_inputs(inputs, size), filled, filled)
            pictures = write_page(
                folder,
                image,
                image.pixels_at(self.places),
                self._layers,
                recorder,
                dict(image=str(path or name), run=runner.work_dir, step=step),
                index,
                self.max_heads,
            )
            _publish(runner, pictures, name)


def _images(batch: dict) -> Sequence[torch.Tensor]:
    """The images of a batch; with augmentations, those of the first."""
    inputs = batch['inputs']
    while isinstance(inputs[0], (list, tuple)):
        inputs = inputs[0]
    return inputs


def _publish(runner: Runner, pictures: list[Path], name: str) -> None:
    """Give the pictures to the backends that do not write to the folder."""
    for backend in runner.visualizer._vis_backends.values():
        if isinstance(backend, LocalVisBackend):
            continue
        for path in pictures:
            with Image.open(path) as picture:
                backend.add_image(
                    f'attention/{name}/{path.stem}',
                    np.asarray(picture.convert('RGB')),
                    runner.iter,
                )
