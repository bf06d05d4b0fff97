"""Mistakes of the codebases that keep their own configs from running.

The check of a model meets them with any backbone. It says so, mends the one
that it met, in its own process and nowhere else, and goes on: otherwise
nothing would be known of the swap. Lines are of onedl-mmdetection 3.5.1,
onedl-mmpretrain 1.3.6 and onedl-mmsegmentation 1.4.2; what a codebase has
mended itself is not met any more.
"""

import re
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple
from unittest.mock import patch

from .samples import SIZE


class HostMistake(NamedTuple):
    """One mistake of a codebase, or of configs that it ships."""

    host: str
    name: str
    what: str
    """Where it is, and what is wrong."""
    error: str
    """Pattern of what the check raises."""
    algorithm: str
    """Pattern of the type of the model."""
    mend: Callable[[dict], AbstractContextManager]
    """Mends the config of a model in place, or the code for a while."""


def find_mistake(
    host: str, model: dict, error: str, met: Collection[HostMistake]
) -> HostMistake | None:
    """Find the known mistake that an error comes from.

    Args:
        host: Codebase of the model.
        model: Its config.
        error: What the check raised.
        met: Mistakes that are mended already: they are not to blame.

    Returns:
        The mistake, or None if the error is of no known one.
    """
    kind = str(model.get('type')).rpartition('.')[2]
    for mistake in MISTAKES:
        if (
            mistake.host == host
            and mistake not in met
            and re.fullmatch(mistake.algorithm, kind)
            and re.search(mistake.error, error)
        ):
            return mistake
    return None


def _encode_for_512(model: dict) -> AbstractContextManager:
    from mmdet.models.layers.transformer import dino_layers

    encode = dino_layers.coordinate_to_encoding
    return patch.object(
        dino_layers,
        'coordinate_to_encoding',
        lambda coordinates, num_feats: encode(coordinates, num_feats // 2),
    )


def _name_assigner(model: dict) -> AbstractContextManager:
    costs = [
        dict(type='BinaryFocalLossCost', weight=2.0),
        dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
        dict(type='IoUCost', iou_mode='giou', weight=2.0),
    ]
    model['train_cfg'] = dict(
        assigner=dict(type='HungarianAssigner', match_costs=costs)
    )
    return nullcontext()


def _name_no_loss(model: dict) -> AbstractContextManager:
    from mmdet.models.dense_heads import SSDHead

    return patch.object(SSDHead, 'loss_cls', None, create=True)


def _name_box_loss(model: dict) -> AbstractContextManager:
    model['bbox_head']['loss_bbox'] = dict(type='GIoULoss', loss_weight=2.0)
    return nullcontext()


def _drop_option(model: dict) -> AbstractContextManager:
    model['neck'].pop('force_grad_on_level', None)
    return nullcontext()


def _switch_once(model: dict) -> AbstractContextManager:
    from mmpretrain.models.heads import LeViTClsHead

    switch = LeViTClsHead.switch_to_deploy
    return patch.object(
        LeViTClsHead, 'switch_to_deploy', lambda self, *_: switch(self)
    )


def _name_crop(model: dict) -> AbstractContextManager:
    model['data_preprocessor']['size'] = SIZE
    return nullcontext()


MISTAKES = (
    HostMistake(
        'mmdet',
        'Grounding DINO: reference points',
        '`DinoTransformerDecoder.forward` (layers/transformer/dino_layers.py, '
        'line 84) encodes reference points in 4 x 256 channels, '
        '`GroundingDinoTransformerDecoder` (grounding_dino_layers.py, line '
        '280) builds the layer that reads them for 2 x 256, as its published '
        'weights have it. Mended: the encoding has 2 x 256',
        r'mat1 and mat2 shapes cannot be multiplied \(\d+x1024 and 512x256\)',
        'GroundingDINO',
        _encode_for_512,
    ),
    HostMistake(
        'mmdet',
        'Grounding DINO: assigner',
        'the configs for evaluation (grounding_dino/*pretrain*) have a data '
        'loader for training, but `train_cfg=None`: `DETRHead` (dense_heads/'
        'detr_head.py, line 426) has no assigner. Mended: that of the configs '
        'for training',
        "'GroundingDINOHead' object has no attribute 'assigner'",
        'GroundingDINO',
        _name_assigner,
    ),
    HostMistake(
        'mmdet',
        'SSD: loss_cls',
        '`BaseDenseHead._predict_by_feat_single` (dense_heads/'
        'base_dense_head.py, line 386) reads `self.loss_cls`, which `SSDHead` '
        'does not have: no prediction. Mended: it is None',
        "'SSDHead' object has no attribute 'loss_cls'",
        '.*',
        _name_no_loss,
    ),
    HostMistake(
        'mmdet',
        'GLIP: loss_bbox',
        'the configs for evaluation (glip/*pretrain*) name no `loss_bbox`, '
        'and the one that `ATSSVLFusionHead` then takes, SmoothL1Loss, cannot '
        'weigh boxes (dense_heads/atss_vlfusion_head.py, line 595): no '
        'training. Mended: GIoULoss, as in the configs for training',
        r'The size of tensor a \(4\) must match the size of tensor b',
        'GLIP',
        _name_box_loss,
    ),
    HostMistake(
        'mmdet',
        'V3Det: force_grad_on_level',
        'v3det/fcos_swinb_fpn_8x4_sample1e-3_mstrain_v3det_2x.py names an '
        'option that `FPN` (necks/fpn.py) does not have. Mended: left out',
        "FPN.__init__.* unexpected keyword argument 'force_grad_on_level'",
        'FCOS',
        _drop_option,
    ),
    HostMistake(
        'mmpretrain',
        'LeViT: switch_to_deploy',
        '`LeViTClsHead.__init__` (heads/levit_head.py, line 62) hands `self` '
        'to its own method twice: nothing with `deploy=True` can be built. '
        'Mended: once',
        r'LeViTClsHead.switch_to_deploy\(\) takes 1 positional argument',
        'ImageClassifier',
        _switch_once,
    ),
    HostMistake(
        'mmseg',
        'UPerNet-R18: size',
        'upernet/upernet_r18_4xb4-*.py leave the `size` of the data '
        'preprocessor out, which `stack_batch` (utils/misc.py, line 64) wants '
        'in training. Mended: the size of the images',
        'only one of size and size_divisor should be valid',
        'EncoderDecoder',
        _name_crop,
    ),
)
