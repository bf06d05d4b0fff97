"""Compare the optimizer of a swapped config with that of its source.

Both models are built without weights and their parameters grouped with
``lr=1`` and ``weight_decay=1``, so that groups hold multipliers.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import torch.nn as nn
from fakes import fake_dependencies
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, DefaultScope
from upstream_bugs import UpstreamBug, find_bug, work_around

from mmattn.engine.backbone_constructor import (
    find_backbones,
    undecayed_parameters,
)
from mmattn.swapping.checking import CheckFailed, shrink_model
from mmattn.swapping.edits import plain
from mmattn.swapping.feature_maps import build_without_weights

_ADAMW = dict(type='AdamW', lr=1.0, weight_decay=1.0)
_TABLE = 'relative_position_bias_table'
# They exempt biases and 1-d parameters without an option.
_NAME_BOUND = (
    'LayerDecayOptimizerConstructor',
    'LearningRateDecayOptimizerConstructor',
)


class Group(NamedTuple):
    """Multipliers of one parameter."""

    rate: float
    decay: float


class Inside(NamedTuple):
    """A parameter of one of our backbones."""

    is_exempt: bool
    """Whether it belongs to a norm or is a position table."""
    is_flat: bool
    height: int
    """Layers above it."""


def describe_optimizer(source: dict, config: dict, codebase: str) -> dict:
    """Check the parameter groups of a swapped config.

    Outside of the backbone, learning rate and weight decay must be those of
    the source. Inside, the learning rate must be that of the old backbone
    (times a factor for each layer where the source has one), and the weight
    decay 0 for norms and position tables, and for biases and other 1-d
    parameters if the source exempts them everywhere, and for nothing else.

    Args:
        source: The whole source config.
        config: The whole swapped config.
        codebase: Codebase of both.

    Returns:
        ``optimizer``: 'right', 'wrong' or 'none' (the config has none);
        ``optimizer_detail``: what is wrong; ``layer_decay``: whether rates
        differ by layer; ``exempt_biases``: whether the source exempts biases.

    Raises:
        CheckFailed: If one of the models cannot be built.
    """
    wrapper = source.get('optim_wrapper') or {}
    if not isinstance(wrapper.get('optimizer'), dict):
        return dict(optimizer='none')
    with _building(config, codebase) as model:
        new = _groups(model, config)
        inside = _inside(model)
    places = {name.partition('backbone.')[0] for name in inside}
    with _building(source, codebase) as model:
        old = _groups(model, source)
        sizes = {
            name: parameter.numel()
            for name, parameter in model.named_parameters()
            if name in old
            and name.startswith(tuple(f'{place}backbone.' for place in places))
        }
    options = config['optim_wrapper'].get('paramwise_cfg') or {}
    layer_decay = options.get('layer_decay_rate')
    exempt_biases = _exempts_biases(wrapper)
    rates = {
        is_table: _main_rate(old, sizes, is_table)
        for is_table in (False, True)
    }
    problems = [
        f'{name} has {tuple(new[name])}, in the source {tuple(group)}'
        for name, group in old.items()
        if name in new and name not in inside and new[name] != group
    ]
    for name, group in new.items():
        if name not in inside:
            continue
        parameter = inside[name]
        rate = rates[name.endswith(_TABLE)]
        if layer_decay is not None:
            rate = layer_decay**parameter.height
        if rate is not None and abs(group.rate - rate) > 1e-9:
            problems.append(f'{name} has rate {group.rate}, not {rate}')
        may_decay = not parameter.is_exempt
        must_decay = may_decay and not (exempt_biases and parameter.is_flat)
        if group.decay != 0 and not may_decay:
            problems.append(f'{name} decays')
        if group.decay == 0 and must_decay:
            problems.append(f'{name} does not decay')
    detail = f'{len(problems)} groups: {problems[0]}' if problems else ''
    return dict(
        optimizer='wrong' if problems else 'right',
        optimizer_detail=detail,
        layer_decay=layer_decay is not None,
        exempt_biases=exempt_biases,
    )


@contextmanager
def _building(config: dict, codebase: str) -> Iterator[nn.Module]:
    """Build the model of a config on the meta device where that works."""
    bugs: list[UpstreamBug] = []
    while True:
        cfg = shrink_model(config)
        with ExitStack() as stack:
            stack.enter_context(DefaultScope.overwrite_default_scope(codebase))
            stack.enter_context(fake_dependencies(cfg, codebase))
            stack.enter_context(work_around(bugs, cfg))
            try:
                model = build_without_weights(cfg)
            except Exception as error:  # codebases raise anything
                bug = find_bug(codebase, cfg, str(error), bugs)
                if bug is None:
                    text = f'build: {type(error).__name__}: {error}'
                    raise CheckFailed(text) from error
                bugs.append(bug)
                continue
            yield model
            return


def _groups(model: nn.Module, config: dict) -> dict[str, Group]:
    """Multipliers of all trainable parameters by name."""
    wrapper = config['optim_wrapper']
    constructor = OPTIM_WRAPPER_CONSTRUCTORS.build(
        dict(
            type=wrapper.get('constructor')
            or 'DefaultOptimWrapperConstructor',
            optim_wrapper_cfg=dict(optimizer=dict(_ADAMW)),
            paramwise_cfg=plain(wrapper.get('paramwise_cfg')),
        )
    )
    groups = {
        parameter: Group(group['lr'], group['weight_decay'])
        for group in constructor(model).optimizer.param_groups
        for parameter in group['params']
    }
    return {
        name: groups[parameter]
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter in groups
    }


def _inside(model: nn.Module) -> dict[str, Inside]:
    """Parameters of all our backbones by their names in the model."""
    found = {}
    for backbone in find_backbones(model):
        exempt = set(undecayed_parameters(backbone))
        for name, parameter in backbone.named_parameters():
            depth, count = backbone.get_layer_depth(name)
            found[parameter] = Inside(
                parameter in exempt, parameter.ndim == 1, count - 1 - depth
            )
    return {n: found[p] for n, p in model.named_parameters() if p in found}


def _main_rate(
    groups: dict[str, Group], sizes: dict[str, int], of_tables: bool
) -> float | None:
    """The rate of most weights of the old backbone, or of most in its tables.

    None if it is not trained. A backbone without tables has the same rate.
    """
    tables = {n: size for n, size in sizes.items() if n.endswith(_TABLE)}
    counts: Counter = Counter()
    for name, size in (of_tables and tables or sizes).items():
        counts[groups[name].rate] += size
    return counts.most_common(1)[0][0] if counts else None


def _exempts_biases(wrapper: dict) -> bool:
    """Whether biases or 1-d parameters of the whole model do not decay."""
    constructor = str(wrapper.get('constructor')).rpartition('.')[2]
    options = wrapper.get('paramwise_cfg') or {}
    keys = options.get('custom_keys') or {}
    undecayed = [k for k, v in keys.items() if v.get('decay_mult') == 0]
    return (
        constructor in _NAME_BOUND
        or options.get('bias_decay_mult') == 0
        or options.get('flat_decay_mult') == 0
        or any('bias' in key and _TABLE not in key for key in undecayed)
    )
