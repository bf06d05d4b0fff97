"""Put fused modules into a copy of a model, from outside."""

import copy
import functools
import logging
from collections import Counter

import torch
import torch.nn as nn
from mmengine.logging import print_log
from torch import Tensor

from .folding import fold_children, is_plain
from .kernels import LIBRARY
from .modules import CANNOT_TRAIN, FUSED

_FUSED = {kind.replaces: kind for kind in FUSED}
# Packages of the layers that modules of mmattn are made of.
_BUILDING_BLOCKS = ('torch', 'mmcv', 'mmengine')


def optimize_for_inference(model: nn.Module) -> nn.Module:
    """A copy of ``model`` that is faster on a CPU and only for inference.

    Inside the modules of mmattn it folds batch normalization into the
    convolutions before it, and replaces linear layers, layer norms, depthwise
    convolutions, MLPs and SMT's attention and modulation by modules with C++
    kernels. Other modules (the neck and the head of a detector), subclasses
    and modules with hooks, adapters, pruning or parametrizations are
    unchanged. Without a C++ compiler it replaces nothing and warns.

    Results differ from those of ``model`` in evaluation mode by rounding. On
    a GPU, in half precision, under autocast, torch.compile or export the copy
    runs plain PyTorch.

    Args:
        model: Any model; it does not change.

    Returns:
        The copy, in evaluation mode, with ``requires_grad`` False everywhere.
        Its attribute ``optimized`` counts the replaced modules by kind.
        ``train()`` raises RuntimeError.
    """
    root = nn.Sequential(_copy(model))
    root.eval()
    root.requires_grad_(False)
    optimized: Counter[str] = Counter()
    why_not = LIBRARY.why_not()
    if why_not is None:
        foreign = {root}
        _find_foreign(root, foreign)
        _replace_children(root, foreign, optimized, {})
    root.eval()  # new modules too
    model = root[0]
    model.optimized = dict(+optimized)
    model.train = functools.partial(_train, model)
    _log(model, why_not)
    return model


def _copy(model: nn.Module) -> nn.Module:
    # Pruning and weight norm store tensors that deepcopy rejects.
    results = {
        id(x): x.detach().clone()
        for module in model.modules()
        for x in vars(module).values()
        if isinstance(x, Tensor) and not x.is_leaf
    }
    return copy.deepcopy(model, results)


def _find_foreign(
    parent: nn.Module, foreign: set[nn.Module], seen: set | None = None
) -> None:
    """Find the modules that are not part of mmattn's modules.

    Args:
        parent: A module whose children are looked at.
        foreign: Gets the modules of other packages inside ``parent``, with
            what they contain up to the next module of mmattn.
        seen: Modules that were visited, with whether as foreign ones.
    """
    seen = set() if seen is None else seen
    if (parent, parent in foreign) in seen:
        return
    seen.add((parent, parent in foreign))
    for child in parent.children():
        package = type(child).__module__.partition('.')[0]
        if package != 'mmattn' and (
            parent in foreign or package not in _BUILDING_BLOCKS
        ):
            foreign.add(child)
        _find_foreign(child, foreign, seen)


def _replace_children(
    parent: nn.Module,
    foreign: set[nn.Module],
    optimized: Counter[str],
    done: dict[nn.Module, nn.Module],
) -> None:
    """Replace modules inside ``parent``, in place.

    Args:
        parent: A module.
        foreign: Modules to leave as they are.
        optimized: Number of replacements of each kind, updated.
        done: Each module seen and its replacement, updated.
    """
    if parent not in foreign:
        optimized['batch_norm'] += fold_children(parent, foreign)
    for name, child in parent._modules.items():
        if child is None:
            continue
        if child not in done:
            kind = None if child in foreign else _FUSED.get(type(child))
            fused = None if kind is None else kind.fuse(child)
            if fused is not None:
                optimized[kind.kind] += 1
            elif child not in foreign and is_plain(child, nn.Conv2d):
                # The memory format of its result suits the next layer.
                child.to(memory_format=torch.channels_last)
            done[child] = child if fused is None else fused
            _replace_children(done[child], foreign, optimized, done)
        parent._modules[name] = done[child]


def _train(model: nn.Module, mode: bool = True) -> nn.Module:
    if mode:
        raise RuntimeError(CANNOT_TRAIN)
    return type(model).train(model, False)


def _log(model: nn.Module, why_not: str | None) -> None:
    kinds = [f'{n} {kind}' for kind, n in sorted(model.optimized.items()) if n]
    replaced = ', '.join(kinds) or f'nothing: {why_not or "nothing fits"}'
    level = logging.INFO if kinds else logging.WARNING
    message = f'optimize_for_inference replaced {replaced}'
    print_log(message, logger='current', level=level)
