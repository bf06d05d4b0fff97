"""What a new backbone needs: preprocessing, weights and an optimizer."""

from .edits import Edit, Path, get_at
from .families import Family

# ImageNet statistics, in RGB order, which published weights expect.
MEAN = [123.675, 116.28, 103.53]
STD = [58.395, 57.12, 57.375]
# AdamW's learning rate, its batch size and the weight decay in Swin's configs.
_RECIPES = {
    'mmdet': (1e-4, 16, 0.05),
    'mmseg': (6e-5, 16, 0.01),
    'mmpretrain': (1e-3, 1024, 0.05),
}
_DEFAULT = 'DefaultOptimWrapperConstructor'
_CONSTRUCTOR = 'mmattn.BackboneOptimWrapperConstructor'
_LAYER_DECAY = 'mmattn.LayerDecayOptimWrapperConstructor'
# Constructors of mmdet and mmseg that only know the layers of certain other
# backbones; without weight decay on biases and 1-d parameters.
_NAME_BOUND = (
    'LayerDecayOptimizerConstructor',
    'LearningRateDecayOptimizerConstructor',
)


def edit_preprocessor(config: dict, in_channels: int = 3) -> list[Edit]:
    """Normalize RGB images with ImageNet statistics.

    Images with other channels, and those that the config does not normalize
    (``mean=None``), are left as they are.
    """
    path = ('model', 'data_preprocessor')
    if not get_at(config, path):
        path = path[1:]
    if isinstance(get_at(config, (*path, path[-1])), dict):
        path = (*path, path[-1])  # of each branch of a semi-supervised model
    cfg = get_at(config, path)
    if not cfg or in_channels != 3:
        return []
    mean = cfg.get('mean', MEAN)
    if mean is None or len(mean) != len(MEAN):
        return []
    kind = str(cfg.get('type', ''))
    classifies = kind in ('', 'ReIDDataPreprocessor') or (
        kind.startswith(('Cls', 'SelfSup', 'TwoNorm'))
    )
    order = 'to_rgb' if classifies else 'bgr_to_rgb'
    wanted = {'mean': MEAN, 'std': STD, order: True}
    if cfg.get('rgb_to_bgr'):
        wanted['rgb_to_bgr'] = False
    why = 'RGB images with ImageNet statistics.'
    return [
        Edit((*path, key), value, why)
        for key, value in wanted.items()
        if not _same(cfg.get(key), value)
    ]


def _same(old: object, new: object) -> bool:
    if isinstance(old, (list, tuple)) and isinstance(new, list):
        return len(old) == len(new) and all(
            abs(a - b) < 0.01 for a, b in zip(old, new)
        )
    return old == new


def edit_weights(config: dict, network: Path) -> list[Edit]:
    """Drop pretrained weights of the old backbone."""
    edits = []
    why = 'Pretrained weights of the old backbone.'
    for depth in range(1, len(network) + 1):
        path = network[:depth]
        model = get_at(config, path)
        if model.get('pretrained') is not None:
            edits.append(Edit((*path, 'pretrained'), None, why))
        if get_at(model, ('init_cfg', 'type')) == 'Pretrained':
            edits.append(Edit((*path, 'init_cfg'), None, why))
    if config.get('load_from'):
        edits.append(Edit(('load_from',), None, why))
    return edits


def edit_optimizer(config: dict, family: Family, codebase: str) -> list[Edit]:
    """Train with AdamW, without weight decay on norms and position tables."""
    wrapper = config.get('optim_wrapper')
    if not wrapper or not isinstance(wrapper.get('optimizer'), dict):
        return []
    edits = []
    if wrapper['optimizer'].get('type') != 'AdamW':
        optimizer = _adamw(config, codebase)
        edits += [optimizer, *_scale_floors(config, optimizer.value['lr'])]
    path = ('optim_wrapper', 'constructor')
    options = wrapper.get('paramwise_cfg') or {}
    constructor = (wrapper.get('constructor') or _DEFAULT).rpartition('.')[2]
    why = 'No weight decay on norms and position tables of the backbone.'
    if constructor in _NAME_BOUND:
        rate = options.get('decay_rate', options.get('layer_decay_rate', 1.0))
        value = dict(
            layer_decay_rate=rate,
            norm_decay_mult=0.0,
            bias_decay_mult=0.0,
            flat_decay_mult=0.0,
            bypass_duplicate=True,
        )
        why = 'The old constructor does not know the layers of this backbone.'
        edits.append(Edit(path, _LAYER_DECAY, why))
        edits.append(Edit((path[0], 'paramwise_cfg'), value))
    elif constructor == 'LearningRateDecayOptimWrapperConstructor':
        edits.append(Edit(path, _LAYER_DECAY, why))
    elif constructor == _DEFAULT:
        edits.append(Edit(path, _CONSTRUCTOR, why))
        if _changes_rates(options, family):
            edits.append(
                Edit(
                    (path[0], 'paramwise_cfg', 'custom_keys', 'backbone'),
                    dict(lr_mult=1.0),
                    'Other learning rates of biases are for neck and head.',
                )
            )
    return edits


def _changes_rates(options: dict, family: Family) -> bool:
    """Whether rules for other parts change learning rates in the backbone."""
    keys = options.get('custom_keys') or {}
    if any(key in 'backbone.' for key in keys):
        return False  # the config has a rule for the whole backbone
    return options.get('bias_lr_mult', 1) != 1 or any(
        rule.get('lr_mult', 1) != 1
        and any(key in f'backbone.{name}' for name in family.parameters)
        for key, rule in keys.items()
    )


def _adamw(config: dict, codebase: str) -> Edit:
    rate, base, decay = _RECIPES[codebase]
    batch = get_at(config, ('auto_scale_lr', 'base_batch_size')) or base
    value = dict(
        type='AdamW',
        lr=float(f'{rate * batch / base:.3g}'),
        betas=(0.9, 0.999),
        weight_decay=decay,
    )
    why = f'AdamW; the learning rate is for a batch size of {batch}.'
    return Edit(('optim_wrapper', 'optimizer'), value, why)


def _scale_floors(config: dict, rate: float) -> list[Edit]:
    """Scale the lowest learning rates of a schedule with the learning rate."""
    old = config['optim_wrapper']['optimizer'].get('lr')
    schedulers = config.get('param_scheduler')
    if not old or not isinstance(schedulers, list):
        return []
    why = 'The lowest learning rate scales with the learning rate.'
    return [
        Edit(
            ('param_scheduler', i, 'eta_min'),
            float(f'{scheduler["eta_min"] * rate / old:.3g}'),
            why,
        )
        for i, scheduler in enumerate(schedulers)
        if scheduler.get('eta_min')
    ]
