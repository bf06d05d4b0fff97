"""Inferencers of mmdet and mmseg for mmattn's model names.

The inferencers of mmdet and mmseg look a name up in the metafiles of a single
scope and build the model in that scope; with scope mmattn they would not find
their own parts. mmpretrain needs no help:
``ImageClassificationInferencer(NAME)`` knows mmattn's names, and its ``model``
may be replaced by ``mmattn.optimize_for_inference(model)``.
"""

from typing import TYPE_CHECKING, Any

from mmengine.config import Config

from mmattn.zoo import SCHEME, ZooModel, find_model, find_weights

if TYPE_CHECKING:
    from mmdet.apis import DetInferencer
    from mmseg.apis import MMSegInferencer


def det_inferencer(
    name: str,
    weights: str | None = None,
    optimize: bool = False,
    **kwargs: Any,
) -> 'DetInferencer':
    """Build mmdet's ``DetInferencer`` for a model of mmattn.

    Args:
        name: A name from ``mmattn.zoo.list_models()``.
        weights: A checkpoint. Defaults to None: the published weights.
        optimize: Infer with a copy of the model that is faster on a CPU, see
            ``mmattn.optimize_for_inference``. Defaults to False.
        **kwargs: Arguments of ``DetInferencer``, such as ``device``.

    Raises:
        ValueError: If the model does not exist, is not a detector, or has no
            weights.
    """
    model, weights = _find(name, 'Object Detection', weights)
    from mmdet.apis import DetInferencer

    inferencer = DetInferencer(
        Config.fromfile(model.config), weights, **kwargs
    )
    if optimize:
        _optimize(inferencer)
    return inferencer


def seg_inferencer(
    name: str,
    weights: str | None = None,
    optimize: bool = False,
    **kwargs: Any,
) -> 'MMSegInferencer':
    """Build mmseg's ``MMSegInferencer`` for a model of mmattn.

    Args:
        name: A name from ``mmattn.zoo.list_models()``.
        weights: A checkpoint. Defaults to None: the published weights.
        optimize: Infer with a copy of the model that is faster on a CPU, see
            ``mmattn.optimize_for_inference``. Defaults to False.
        **kwargs: Arguments of ``MMSegInferencer``, such as ``device``.
            Classes and palette default to those of the checkpoint.

    Raises:
        ValueError: If the model does not exist, is not a segmentor, or has
            no weights.
    """
    model, weights = _find(name, 'Semantic Segmentation', weights)
    from mmseg.apis import MMSegInferencer

    inferencer = MMSegInferencer(
        Config.fromfile(model.config), weights, **kwargs
    )
    meta = inferencer.model.dataset_meta
    given = {'classes', 'palette', 'dataset_name'} & set(kwargs)
    if not given and meta.get('classes') and meta.get('palette'):
        # By default it draws with the classes of Cityscapes.
        inferencer.visualizer.set_dataset_meta(
            meta['classes'], meta['palette']
        )
    if optimize:
        _optimize(inferencer)
    return inferencer


def _optimize(inferencer: 'DetInferencer | MMSegInferencer') -> None:
    from mmattn.inference import optimize_for_inference

    inferencer.model = optimize_for_inference(inferencer.model)


def _find(
    name: str, task: str, weights: str | None
) -> tuple[ZooModel, str | None]:
    model = find_model(name)
    if task not in model.tasks:
        raise ValueError(
            f'{model.name} is a model for {" and ".join(model.tasks)}, not '
            f'for {task}'
        )
    if weights is None:
        find_weights(model.name)  # raises if there are none
        weights = SCHEME + model.name
    return model, weights
