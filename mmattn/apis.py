"""Inferencers of mmdet and mmseg for mmattn's model names.

The inferencers of mmdet and mmseg find names in the metafiles of one scope and
build the model in that scope. mmpretrain's work as they are:
``ImageClassificationInferencer(NAME)`` knows mmattn's names, and its ``model``
may be replaced by ``mmattn.optimize_for_inference(model)``.
"""

from typing import Any

from mmengine.config import Config

from mmattn.zoo import SCHEME, find_model, find_weights


def det_inferencer(
    name: str,
    weights: str | None = None,
    optimize: bool = False,
    **kwargs: Any,
) -> Any:
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
    config, weights = _find(name, 'Object Detection', weights)
    from mmdet.apis import DetInferencer

    inferencer = DetInferencer(config, weights, **kwargs)
    return _optimized(inferencer) if optimize else inferencer


def seg_inferencer(
    name: str,
    weights: str | None = None,
    optimize: bool = False,
    **kwargs: Any,
) -> Any:
    """Build mmseg's ``MMSegInferencer``; see :func:`det_inferencer`.

    Classes and palette default to those of the checkpoint.
    """
    config, weights = _find(name, 'Semantic Segmentation', weights)
    from mmseg.apis import MMSegInferencer

    inferencer = MMSegInferencer(config, weights, **kwargs)
    meta = inferencer.model.dataset_meta
    given = {'classes', 'palette', 'dataset_name'} & set(kwargs)
    if not given and meta.get('classes') and meta.get('palette'):
        # By default it draws with the classes of Cityscapes.
        inferencer.visualizer.set_dataset_meta(
            meta['classes'], meta['palette']
        )
    return _optimized(inferencer) if optimize else inferencer


def _optimized(inferencer: Any) -> Any:
    from mmattn.inference import optimize_for_inference

    inferencer.model = optimize_for_inference(inferencer.model)
    return inferencer


def _find(name: str, task: str, weights: str | None) -> tuple[Config, str]:
    model = find_model(name)
    if task not in model.tasks:
        raise ValueError(
            f'{model.name} is a model for {" and ".join(model.tasks)}, not '
            f'for {task}'
        )
    if weights is None:
        find_weights(model.name)  # raises if there are none
        weights = SCHEME + model.name
    return Config.fromfile(model.config), weights
