"""Draw the attention of evaluated images during validation and testing."""

from collections.abc import Collection, Sequence
from pathlib import Path

import mmcv
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.visualization import LocalVisBackend

from mmattn.registry import HOOKS
from mmattn.visualization.attention import (
    CallRecorder,
    NetworkImage,
    inputs_to_picture,
    select_layers,
    write_page,
)


@HOOKS.register_module()
class AttentionVisualizationHook(Hook):
    """Draw the attention of every n-th evaluated image.

    Pictures and an HTML page go to ``attention/val_ITERATION/IMAGE`` (in a
    test to ``attention/test/IMAGE``) in the run's log folder. The
    visualizer's other backends, such as TensorBoard, get the pictures too. In
    a distributed run only the first process draws, from its own images.

    Args:
        interval (int): Draw one of this many images, starting with the first
            of each evaluation. Defaults to 500.
        stages (Sequence[int], optional): Stages of the backbone to show, -1
            is the last. Defaults to None: all, and layers outside of stages.
        blocks (Sequence[int], optional): Blocks of each stage to show, -1 is
            the last. Defaults to None: all.
        places (Sequence[tuple]): Pixels whose attention is shown, as
            fractions of height and width. Defaults to two on the diagonal.
        max_heads (int): Heads to show per layer, spread evenly. Defaults to
            4.
    """

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
                'AttentionVisualizationHook expects places as fractions '
                f'(height, width) in [0, 1), got {places}'
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
        """Find the layers to draw.

        Raises:
            ValueError: If the model has none in these stages and blocks.
        """
        self._layers = select_layers(runner.model, self.stages, self.blocks)

    def _before_epoch(self, runner: Runner, mode: str = 'train') -> None:
        """Restart counting images."""
        self._count = 0

    def _before_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        mode: str = 'train',
    ) -> None:
        """Record the layers if an image of the batch is to be drawn."""
        if mode != 'train' and self._indices(data_batch) and is_main_process():
            self._recorder = CallRecorder(runner.model, self._layers)

    def _after_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence | None = None,
        mode: str = 'train',
    ) -> None:
        """Draw the selected images of the batch."""
        if mode == 'train':
            return
        indices, start = self._indices(data_batch), self._count
        self._count += len(_images(data_batch))
        if self._recorder is None:
            return
        recorder, self._recorder = self._recorder, None
        recorder.close()
        step = 'test' if mode == 'test' else f'val_{runner.iter}'
        for index in indices:
            name = str(start + index)
            path = data_batch['data_samples'][index].get('img_path')
            if path:
                name += f'_{Path(path).stem}'
            inputs = _images(data_batch)[index]
            size = recorder.image_size
            content = tuple(map(min, size, inputs.shape[-2:]))
            picture = inputs_to_picture(inputs, size)
            image = NetworkImage(picture, content, content)
            pictures = write_page(
                Path(runner.log_dir, 'attention', step, name),
                image,
                image.pixels_at(self.places),
                recorder,
                dict(image=str(path or name), run=runner.work_dir, step=step),
                index,
                self.max_heads,
            )
            _add_to_visualizer(runner, pictures, name)

    def _indices(self, batch: dict) -> list[int]:
        """Indices of the images to draw in a batch."""
        count = len(_images(batch))
        return list(range(-self._count % self.interval, count, self.interval))


def _images(batch: dict) -> Sequence[torch.Tensor]:
    """Images of a batch; with test-time augmentation the first variant."""
    inputs = batch['inputs']
    while isinstance(inputs[0], (list, tuple)):
        inputs = inputs[0]
    return inputs


def _add_to_visualizer(
    runner: Runner, pictures: list[Path], name: str
) -> None:
    """Send the pictures to all backends other than the log folder."""
    for backend in runner.visualizer._vis_backends.values():
        if isinstance(backend, LocalVisBackend):
            continue
        for path in pictures:
            picture = mmcv.imread(path, channel_order='rgb')
            tag = f'attention/{name}/{path.stem}'
            backend.add_image(tag, picture, runner.iter)
