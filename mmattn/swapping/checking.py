"""Build the model of a config and run a loss and a prediction."""

import logging
import random
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial

import numpy as np
import torch
import torch.nn as nn
from mmengine.config import ConfigDict
from mmengine.logging import MessageHub
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor

from mmattn.config import nested_dicts, replace_sync_norms

from .edits import Path, get_at, plain
from .samples import SIZE, SIZES, Size, make_batch

# Upper limits of counts that make a check slow.
_LIMITS = {
    'max_per_img': 20,
    'nms_pre': 100,
    'nms_post': 50,
    'num_dn_queries': 4,
    'num_cp': 0,  # activation checkpointing, which needs fairscale
    'num_points': 64,
    'num_proposals': 20,
    'num_queries': 20,
    'chunked_size': -1,  # of prompts: one image at a time
}
_MAX_SAMPLED = 16
# Small parameters are initialized again if they hold larger values.
_SMALL = 1 << 14
_LARGE_VALUE = 1e3


class CheckFailed(Exception):
    """A model that cannot be built or run, with the step that failed."""


def shrink_model(config: dict) -> dict:
    """Return the model config that a check builds: small counts, no files.

    Configs that shrink to the same model need only one check.
    """
    model = plain(config['model'])
    if config.get('data_preprocessor'):
        model.setdefault(
            'data_preprocessor', plain(config['data_preprocessor'])
        )
    replace_sync_norms(model)
    for _, node in nested_dicts(model):
        node.pop('init_cfg', None)
        if node.get('use_autocast'):
            node['use_autocast'] = False  # needs a GPU
        for key in ('pretrained', 'teacher_ckpt'):
            if node.get(key) is not None:
                node[key] = False if node[key] is True else None  # timm
        for key, limit in _LIMITS.items():
            if isinstance(node.get(key), int):
                node[key] = min(node[key], limit)
        if str(node.get('type', '')).endswith('Sampler') and 'num' in node:
            node['num'] = min(node['num'], _MAX_SAMPLED)
    if get_at(model, ('head', 'loss', 'use_sigmoid')) is None:
        (model.get('train_cfg') or {}).pop('augments', None)  # of labels
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


def check_model(config: dict, codebase: str, network: Path) -> bool:
    """Build the model of a config, compute a loss and predict.

    Detectors that fail are run on larger images too, since some add coarser
    maps.

    Args:
        config: The whole config.
        codebase: Codebase of the config.
        network: Path of the dict that holds the backbone.

    Returns:
        Whether there is a loss; some algorithms have none
        (NotImplementedError).

    Raises:
        CheckFailed: If a step fails, if the loss is not finite, or if a
            parameter of the backbone does not contribute to it.
    """
    *sizes, last = SIZES if codebase == 'mmdet' else SIZES[:1]
    for size in sizes:
        with suppress(CheckFailed):
            return run_check(config, codebase, network, size)
    return run_check(config, codebase, network, last)


def run_check(
    config: dict,
    codebase: str,
    network: Path,
    size: Size,
    prepare: Callable[[dict], AbstractContextManager] = nullcontext,
) -> bool:
    """Check once, with images of one size; return whether there is a loss.

    Args:
        prepare: Called with the config of the model, which it may change;
            the model is built and run in the context that it returns.
    """
    small = shrink_model(config)
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(0)
    # Losses that depend on the epoch read it here; a Runner would set it.
    for name in ('epoch', 'iter'):
        MessageHub.get_current_instance().update_info(name, 0)
    make = partial(make_batch, dict(config, model=small), codebase, size=size)
    scope = DefaultScope.overwrite_default_scope(codebase)
    with scope, prepare(small):
        step = 'build'
        try:
            model = _build(small)
            step = 'loss'
            has_loss = _check_loss(model, make, network)
            step = 'prediction'
            _predict(model, make, codebase)
        except CheckFailed:
            raise
        except Exception as error:  # codebases raise anything
            raise CheckFailed(
                f'{step}: {type(error).__name__}: {error}'
            ) from error
    return has_loss


def _build(cfg: dict) -> nn.Module:
    model = MODELS.build(ConfigDict(plain(cfg)))
    if hasattr(model, 'rpn_head'):  # sets the size of learned proposals
        logging.disable(logging.INFO)  # four lines for each parameter
        try:
            model.rpn_head.init_weights()
        finally:
            logging.disable(logging.NOTSET)
    for parameter in model.parameters():
        # Uninitialized memory that init_weights would have filled.
        small = parameter.numel() < _SMALL
        if small and not parameter.abs().max() < _LARGE_VALUE:
            nn.init.normal_(parameter, std=0.02)
    return model


def _check_loss(
    model: nn.Module, make: Callable[..., dict], network: Path
) -> bool:
    model.train()
    data = model.data_preprocessor(make(training=True), True)
    try:
        losses = model(**data, mode='loss')
    except NotImplementedError:
        return False
    total, _ = model.parse_losses(losses)
    if not torch.isfinite(total):
        raise CheckFailed(f'loss: it is {total.item()}')
    owner = model
    for name in network[1:]:
        # Semi-supervised detectors hold a student and a teacher.
        owner = getattr(owner, name if hasattr(owner, name) else 'student')
    reached = _parameters_of(total)
    unused = [
        name
        for name, parameter in owner.backbone.named_parameters()
        if parameter.requires_grad and parameter not in reached
    ]
    if unused:
        raise CheckFailed(
            f'loss: {len(unused)} parameters of the backbone do not '
            f'contribute, the first is {unused[0]}'
        )
    return True


def _parameters_of(loss: Tensor) -> set[Tensor]:
    """Parameters in the graph of a loss, without a backward pass."""
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
    model: nn.Module, make: Callable[..., dict], codebase: str
) -> None:
    model.eval()
    batch = make(training=False)
    count = len(batch['data_samples'])
    with torch.no_grad():
        data = model.data_preprocessor(batch, False)
        if codebase == 'mmpretrain' and not _has_prediction(model):
            views = data['inputs']
            model(views[0] if isinstance(views, list) else views)
            return
        results = model(**data, mode='predict')
    if len(results) != count:
        raise CheckFailed(
            f'prediction: {len(results)} results for {count} images'
        )


def _has_prediction(model: nn.Module) -> bool:
    from mmpretrain.models import BaseSelfSupervisor, ImageToImageRetriever

    return not isinstance(model, (BaseSelfSupervisor, ImageToImageRetriever))
