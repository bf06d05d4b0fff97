"""Inferencers of mmdet and mmseg for models that go by our names.

They look a name up in the metafiles of one scope only, and build with that
scope: with ours they would not find their own parts. mmpretrain needs no
help: ``ImageClassificationInferencer(NAME)`` knows our names.
"""

from typing import TYPE_CHECKING, Any

from mmengine.config import Config

from mmattn.zoo import SCHEME, ZooModel, find_model, find_weights

if TYPE_CHECKING:
    from mmdet.apis import DetInferencer
    from mmseg.apis import MMSegInferencer


def det_inferencer(
    name: str, weights: str | None = None, **kwargs: Any
) -> 'DetInferencer':
    """Build mmdet's ``DetInferencer`` for one of our models.

    Args:
        name: Of the model, as ``mmattn.zoo.list_models()`` gives it.
        weights: A checkpoint. Defaults to None: what was published.
        **kwargs: For ``DetInferencer``, such as ``device``.

    Raises:
        ValueError: If there is no such model, if it detects nothing, or if it
            has no published weights and none are given.
    """
    model = _find(name, 'Object Detection')
    weights = _weights(model, weights)
    from mmdet.apis import DetInferencer

    return DetInferencer(Config.fromfile(model.config), weights, **kwargs)


def seg_inferencer(
    name: str, weights: str | None = None, **kwargs: Any
) -> 'MMSegInferencer':
    """Build mmseg's ``MMSegInferencer`` for one of our models.

    Args:
        name: Of the model, as ``mmattn.zoo.list_models()`` gives it.
        weights: A checkpoint. Defaults to None: what was published.
        **kwargs: For ``MMSegInferencer``, such as ``device``. Classes and
            palette default to those that the checkpoint was trained with.

    Raises:
        ValueError: If there is no such model, if it segments nothing, or if
            it has no published weights and none are given.
    """
    model = _find(name, 'Semantic Segmentation')
    weights = _weights(model, weights)
    from mmseg.apis import MMSegInferencer

    inferencer = MMSegInferencer(
        Config.fromfile(model.config), weights, **kwargs
    )
    meta = inferencer.model.dataset_meta
    told = {'classes', 'palette', 'dataset_name'} & set(kwargs)
    if not told and meta.get('classes') and meta.get('palette'):
        # It draws with the classes of Cityscapes unless told otherwise.
        inferencer.visualizer.set_dataset_meta(
            meta['classes'], meta['palette']
        )
    return inferencer


def _find(name: str, task: str) -> ZooModel:
    model = find_model(name)
    if task not in model.tasks:
        raise ValueError(
            f'mmattn expects a model for {task}, got {model.name}, which is '
            f'for {" and ".join(model.tasks)}; take the inferencer of that '
            'task'
        )
    return model


def _weights(model: ZooModel, weights: str | None) -> str:
    if weights is not None:
        return weights
    find_weights(model.name)  # says so if there are none
    return SCHEME + model.name
