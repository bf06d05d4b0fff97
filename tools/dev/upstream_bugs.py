"""Bugs of mmdet, mmseg and mmpretrain that stop their own configs.

These configs fail with any backbone. To test their swaps nevertheless, a
coverage run works around the bug in its own process. Line numbers refer to
onedl-mmdetection 3.5.1, onedl-mmpretrain 1.3.6 and onedl-mmsegmentation 1.4.2.
Once upstream fixes a bug, its entry is not used.
"""

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import (
    AbstractContextManager,
    ExitStack,
    contextmanager,
    nullcontext,
)
from typing import NamedTuple
from unittest.mock import patch

from mmattn.swapping.samples import SIZE


class UpstreamBug(NamedTuple):
    """A bug in a codebase or in configs that it ships."""

    codebase: str
    name: str
    description: str
    """File, line, what is wrong, and how the check works around it."""
    error: str
    """Pattern of the error that the check raises."""
    algorithm: str
    """Pattern of the type of the model."""
    work_around: Callable[[dict], AbstractContextManager]
    """Changes the model config in place, or patches the code temporarily."""


def find_bug(
    codebase: str, model: dict, error: str, seen: Collection[UpstreamBug]
) -> UpstreamBug | None:
    """Return the known bug that caused an error, or None.

    Args:
        codebase: Codebase of the model.
        model: Config of the model.
        error: Message of the error.
        seen: Bugs that are worked around already.
    """
    kind = str(model.get('type')).rpartition('.')[2]
    for bug in BUGS:
        if (
            bug.codebase == codebase
            and bug not in seen
            and re.fullmatch(bug.algorithm, kind)
            and re.search(bug.error, error)
        ):
            return bug
    return None


@contextmanager
def work_around(bugs: Collection[UpstreamBug], model: dict) -> Iterator[None]:
    """Work around bugs while a model is built and run."""
    with ExitStack() as stack:
        for bug in bugs:
            stack.enter_context(bug.work_around(model))
        yield


def _encode_for_512(model: dict) -> AbstractContextManager:
    from mmdet.models.layers.transformer import dino_layers

    encode = dino_layers.coordinate_to_encoding
    return patch.object(
        dino_layers,
        'coordinate_to_encoding',
        lambda coordinates, num_feats: encode(coordinates, num_feats // 2),
    )


def _set_assigner(model: dict) -> AbstractContextManager:
    costs = [
        dict(type='BinaryFocalLossCost', weight=2.0),
        dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
        dict(type='IoUCost', iou_mode='giou', weight=2.0),
    ]
    model['train_cfg'] = dict(
        assigner=dict(type='HungarianAssigner', match_costs=costs)
    )
    return nullcontext()


def _set_loss_cls(model: dict) -> AbstractContextManager:
    from mmdet.models.dense_heads import SSDHead

    return patch.object(SSDHead, 'loss_cls', None, create=True)


def _set_loss_bbox(model: dict) -> AbstractContextManager:
    model['bbox_head']['loss_bbox'] = dict(type='GIoULoss', loss_weight=2.0)
    return nullcontext()


def _drop_option(model: dict) -> AbstractContextManager:
    model['neck'].pop('force_grad_on_level', None)
    return nullcontext()


def _pass_self_once(model: dict) -> AbstractContextManager:
    from mmpretrain.models.heads import LeViTClsHead

    switch = LeViTClsHead.switch_to_deploy
    return patch.object(
        LeViTClsHead, 'switch_to_deploy', lambda self, *_: switch(self)
    )


def _set_size(model: dict) -> AbstractContextManager:
    model['data_preprocessor']['size'] = SIZE
    return nullcontext()


BUGS = (
    UpstreamBug(
        'mmdet',
        'Grounding DINO: reference points',
        '`DinoTransformerDecoder.forward` (layers/transformer/dino_layers.py, '
        'line 84) encodes reference points in 4 x 256 channels, but the layer '
        'that reads them in `GroundingDinoTransformerDecoder` '
        '(grounding_dino_layers.py, line 280) has 2 x 256 inputs, like its '
        'published weights. Workaround: encode in 2 x 256 channels',
        r'mat1 and mat2 shapes cannot be multiplied \(\d+x1024 and 512x256\)',
        'GroundingDINO',
        _encode_for_512,
    ),
    UpstreamBug(
        'mmdet',
        'Grounding DINO: assigner',
        'the configs for evaluation (grounding_dino/*pretrain*) have a '
        'training data loader but `train_cfg=None`, so `DETRHead` '
        '(dense_heads/detr_head.py, line 426) has no assigner. Workaround: '
        'the assigner of the training configs',
        "'GroundingDINOHead' object has no attribute 'assigner'",
        'GroundingDINO',
        _set_assigner,
    ),
    UpstreamBug(
        'mmdet',
        'SSD: loss_cls',
        '`BaseDenseHead._predict_by_feat_single` (dense_heads/'
        'base_dense_head.py, line 386) reads `self.loss_cls`, which `SSDHead` '
        'does not have, so prediction fails. Workaround: set it to None',
        "'SSDHead' object has no attribute 'loss_cls'",
        '.*',
        _set_loss_cls,
    ),
    UpstreamBug(
        'mmdet',
        'GLIP: loss_bbox',
        'the configs for evaluation (glip/*pretrain*) set no `loss_bbox`, and '
        'the default of `ATSSVLFusionHead`, SmoothL1Loss, cannot weight boxes '
        '(dense_heads/atss_vlfusion_head.py, line 595), so training fails. '
        'Workaround: GIoULoss, as in the training configs',
        r'The size of tensor a \(4\) must match the size of tensor b',
        'GLIP',
        _set_loss_bbox,
    ),
    UpstreamBug(
        'mmdet',
        'V3Det: force_grad_on_level',
        'v3det/fcos_swinb_fpn_8x4_sample1e-3_mstrain_v3det_2x.py sets an '
        'option that `FPN` (necks/fpn.py) does not have. Workaround: drop it',
        "FPN.__init__.* unexpected keyword argument 'force_grad_on_level'",
        'FCOS',
        _drop_option,
    ),
    UpstreamBug(
        'mmpretrain',
        'LeViT: switch_to_deploy',
        '`LeViTClsHead.__init__` (heads/levit_head.py, line 62) passes `self` '
        'to its own method twice, so models with `deploy=True` cannot be '
        'built. Workaround: pass it once',
        r'LeViTClsHead.switch_to_deploy\(\) takes 1 positional argument',
        'ImageClassifier',
        _pass_self_once,
    ),
    UpstreamBug(
        'mmseg',
        'UPerNet-R18: size',
        'upernet/upernet_r18_4xb4-*.py do not set the `size` of the data '
        'preprocessor, which `stack_batch` (utils/misc.py, line 64) needs in '
        'training. Workaround: the size of the images',
        'only one of size and size_divisor should be valid',
        'EncoderDecoder',
        _set_size,
    ),
)
