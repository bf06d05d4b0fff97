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
# Names of the layer decay in these constructors.
_RATES = ('decay_rate', 'layer_decay_rate')
# Recipes with a smaller weight decay (DETR) decay norms as well.
_LEAST_DECAY = 1e-4
# Constructors that only know the layers of certain other backbones.
_NAME_BOUND = (
    'LayerDecayOptimizerConstructor',
    'LearningRateDecayOptimizerConstructor',
)


def edit_preprocessor(config: dict) -> list[Edit]:
    """Normalize RGB images with ImageNet statistics."""
    path = ('model', 'data_preprocessor')
    if not get_at(config, path):
        path = path[1:]
    if isinstance(get_at(config, (*path, path[-1])), dict):
        path = (*path, path[-1])  # of each branch of a semi-supervised model
    cfg = get_at(config, path)
    if not cfg or len(cfg.get('mean') or MEAN) != len(MEAN):
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
    why = 'These weights are of the old backbone.'
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
    """Train with AdamW; norms and position tables do not decay."""
    wrapper = config.get('optim_wrapper')
    if not wrapper or not isinstance(wrapper.get('optimizer'), dict):
        return []
    path = ('optim_wrapper',)
    edits = []
    if wrapper['optimizer'].get('type') != 'AdamW':
        edits.append(_adamw(config, codebase))
    old = get_at(wrapper, ('paramwise_cfg', 'custom_keys')) or {}
    missing = _undecayed(family, old, wrapper['optimizer'])
    why = 'Norms and position tables of the backbone do not decay.'
    paramwise = wrapper.get('paramwise_cfg') or {}
    if wrapper.get('constructor') in _NAME_BOUND:
        rates = [paramwise.get(key) for key in _RATES]
        edits.append(
            Edit(
                (*path, 'constructor'),
                'mmattn.LayerDecayOptimWrapperConstructor',
                'The old constructor only knows layers of other backbones.',
            )
        )
        value = dict(
            layer_decay_rate=next(filter(None, rates), 1.0),
            custom_keys={**old, **missing},
        )
        edits.append(Edit((*path, 'paramwise_cfg'), value, why))
    elif not paramwise:
        value = dict(custom_keys=missing)
        edits.append(Edit((*path, 'paramwise_cfg'), value, why))
    else:
        where = (*path, 'paramwise_cfg', 'custom_keys')
        edits += [
            Edit((*where, key), value, why) for key, value in missing.items()
        ]
    return edits


def _undecayed(family: Family, old: dict, optimizer: dict) -> dict:
    """Missing keys of the parameters that do not decay.

    mmengine uses the longest key that is part of a parameter's name, so a key
    for the whole backbone overrides shorter ones.
    """
    parts, rule = family.undecayed, dict(decay_mult=0.0)
    whole = next((key for key in ('backbone', 'backbone.') if key in old), '')
    decays = optimizer.get('weight_decay', 0) > _LEAST_DECAY
    if whole and decays and old[whole].get('decay_mult', 1) != 0:
        parts = [part for part in parts if len(part) > len(whole)]
        parts += [
            f'backbone.{path}'
            for path in family.undecayed_paths
            if not path.endswith(tuple(parts))
        ]
        rule = {**old[whole], **rule}
    return {part: dict(rule) for part in parts if part not in old}


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
