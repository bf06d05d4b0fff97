"""Build the model of a config and run a loss and a prediction."""

import logging
import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn as nn
from mmengine.config import ConfigDict
from mmengine.logging import MessageHub
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor

from mmattn.config import replace_sync_norms

from .cheap_build import shared_weights
from .edits import Path, get_at, plain
from .host_mistakes import HostMistake, find_mistake
from .samples import SIZE, SIZES, Size, make_batch
from .stand_ins import stand_ins

# The most that a check needs of what an algorithm counts.
_MOST = {
    'max_per_img': 20,
    'nms_pre': 100,
    'nms_post': 50,
    'num_dn_queries': 4,
    'num_cp': 0,  # of activation checkpointing, which wants fairscale
    'num_points': 64,
    'num_proposals': 20,
    'num_queries': 20,
    'chunked_size': -1,  # of prompts: one image at a time
}
_MOST_SAMPLED = 16
_CLASSES = 6
# No parameter of this size or less begins with numbers as great.
_SMALL = 1 << 14
_GREAT = 1e3


class CheckFailed(Exception):
    """A model that cannot be built or run: the message says where."""


class Checked(NamedTuple):
    """A model that was built and run."""

    has_loss: bool
    """Some algorithms have none in the codebase: NotImplementedError."""
    size: Size
    """Of the images that it was run on."""
    mended: tuple[HostMistake, ...] = ()
    """Mistakes of the codebase without which it would not run."""


def shrink_model(config: dict) -> dict:
    """Config of the model that a check builds: small counts, no files.

    Two configs with the same result need only one check.
    """
    model = plain(config['model'])
    if config.get('data_preprocessor'):
        model.setdefault(
            'data_preprocessor', plain(config['data_preprocessor'])
        )
    replace_sync_norms(model)
    _shrink(model)
    if get_at(model, ('head', 'loss', 'use_sigmoid')) is None:
        (model.get('train_cfg') or {}).pop('augments', None)  # of labels
    if not _weighs_classes(model):
        _reduce_classes(model)
    preprocessor = model.get('data_preprocessor') or {}
    for cfg in (preprocessor, preprocessor.get('data_preprocessor') or {}):
        if 'batch_augments' in cfg and 'size' not in cfg:
            cfg['batch_augments'] = None
        if cfg.get('size') is not None:
            cfg['size'] = SIZE
        if isinstance(cfg.get('test_cfg'), dict):
            cfg['test_cfg'] = None
    for key in ('crop_size', 'stride'):  # of sliding windows
        if get_at(model, ('test_cfg', key)) is not None:
            model['test_cfg'][key] = SIZE
    return model


def _shrink(node: Any) -> None:
    if isinstance(node, (list, tuple)):
        for item in node:
            _shrink(item)
    if not isinstance(node, dict):
        return
    node.pop('init_cfg', None)  # nothing is trained
    if node.get('use_autocast'):
        node['use_autocast'] = False  # of a GPU
    for key in ('pretrained', 'teacher_ckpt'):
        if node.get(key) is not None:
            node[key] = None
    for key, most in _MOST.items():
        if isinstance(node.get(key), int):
            node[key] = min(node[key], most)
    if str(node.get('type', '')).endswith('Sampler') and 'num' in node:
        node['num'] = min(node['num'], _MOST_SAMPLED)
    for value in node.values():
        _shrink(value)


def _weighs_classes(node: Any) -> bool:
    """Whether a number of classes is more than one entry."""
    if isinstance(node, dict):
        if any(
            isinstance(node.get(key), (list, tuple))
            for key in ('class_weight', 'code_weights')
        ) or any('things' in key or 'stuff' in key for key in node):
            return True
        node = list(node.values())
    return isinstance(node, (list, tuple)) and any(map(_weighs_classes, node))


def _reduce_classes(node: Any) -> None:
    """Only the last layers depend on the number of classes."""
    if isinstance(node, dict):
        if isinstance(node.get('num_classes'), int):
            node['num_classes'] = min(node['num_classes'], _CLASSES)
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for item in node:
            _reduce_classes(item)


def check_model(config: dict, host: str, network: Path) -> Checked:
    """Build the model of a config, get a loss, and predict.

    Args:
        config: The whole config.
        host: Codebase that it is for.
        network: Where its backbone is.

    Returns:
        What was needed for it.

    Raises:
        CheckFailed: If one of the steps fails, if the loss is not finite, or
            if a parameter of the backbone takes no part in it. Detectors are
            tried on larger images too: some go on to coarser maps. Known
            mistakes of the codebase are mended when they are met.
    """
    mended: list[HostMistake] = []
    sizes = list(SIZES if host == 'mmdet' else SIZES[:1])
    while True:
        try:
            has_loss = _check(config, host, network, sizes[0], mended)
            return Checked(has_loss, sizes[0], tuple(mended))
        except CheckFailed as error:
            mistake = find_mistake(host, config['model'], str(error), mended)
            if mistake is not None:
                mended.append(mistake)
            elif len(sizes) > 1:
                del sizes[0]
            else:
                raise


def _check(
    config: dict,
    host: str,
    network: Path,
    size: Size,
    mended: Sequence[HostMistake] = (),
) -> bool:
    small = shrink_model(config)
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(0)
    # What a Runner would tell losses that change with the epoch.
    for name in ('epoch', 'iter'):
        MessageHub.get_current_instance().update_info(name, 0)
    with ExitStack() as stack:
        stack.enter_context(DefaultScope.overwrite_default_scope(host))
        stack.enter_context(stand_ins(small, host))
        for mistake in mended:
            stack.enter_context(mistake.mend(small))
        model = _try('build', lambda: _build(small))
        whole = dict(config, model=small)

        def make(training: bool) -> dict:
            return make_batch(whole, host, training, size)

        has_loss = _try('loss', lambda: _check_loss(model, make, network))
        _try('prediction', lambda: _predict(model, make, host))
    return has_loss


def _try(step: str, call: Any) -> Any:
    try:
        return call()
    except CheckFailed:
        raise
    except Exception as error:  # of a codebase, whatever it raises
        raise CheckFailed(
            f'{step}: {type(error).__name__}: {error}'
        ) from error


def _build(cfg: dict) -> nn.Module:
    with shared_weights():
        model = MODELS.build(ConfigDict(plain(cfg)))
        if hasattr(model, 'rpn_head'):  # learned proposals have no size yet
            logging.disable(logging.INFO)  # four lines for each parameter
            try:
                model.rpn_head.init_weights()
            finally:
                logging.disable(logging.NOTSET)
    for parameter in model.parameters():
        # Memory as it was found, where init_weights would have written.
        if parameter.numel() < _SMALL and not parameter.abs().max() < _GREAT:
            nn.init.normal_(parameter, std=0.02)
    return model


def _check_loss(
    model: nn.Module, make: Callable[[bool], dict], network: Path
) -> bool:
    model.train()
    data = model.data_preprocessor(make(True), True)
    try:
        losses = model(**data, mode='loss')
    except NotImplementedError:
        return False
    total, _ = model.parse_losses(losses)
    if not torch.isfinite(total):
        raise CheckFailed(f'loss: it is {total.item()}')
    owner = model
    for name in network[1:]:
        # A semi-supervised detector holds two copies of its detector.
        owner = getattr(owner, name if hasattr(owner, name) else 'student')
    reached = _parameters_of(total)
    idle = [
        name
        for name, parameter in owner.backbone.named_parameters()
        if parameter.requires_grad and parameter not in reached
    ]
    if idle:
        raise CheckFailed(
            f'loss: {len(idle)} parameters of the backbone take no part, '
            f'the first is {idle[0]}'
        )
    return True


def _parameters_of(loss: Tensor) -> set[Tensor]:
    """Parameters that a loss depends on, without a backward pass."""
    seen, found = set(), set()
    nodes = [loss.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, 'variable'):
            found.add(node.variable)
        nodes += [parent for parent, _ in node.next_functions]
    return found


def _predict(
    model: nn.Module, make: Callable[[bool], dict], host: str
) -> None:
    model.eval()
    batch = make(False)
    count = len(batch['data_samples'])
    with torch.no_grad():
        data = model.data_preprocessor(batch, False)
        if host == 'mmpretrain' and not _predicts(model):
            views = data['inputs']
            model(views[0] if isinstance(views, list) else views)
            return
        results = model(**data, mode='predict')
    if len(results) != count:
        raise CheckFailed(
            f'prediction: {len(results)} results for {count} images'
        )


def _predicts(model: nn.Module) -> bool:
    """Whether a model of mmpretrain has a prediction: a classifier has."""
    from mmpretrain.models import BaseSelfSupervisor, ImageToImageRetriever

    return not isinstance(model, (BaseSelfSupervisor, ImageToImageRetriever))
