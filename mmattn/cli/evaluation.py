"""The options of tools/test.py: pictures, augmentation, dumped results."""

import os
from copy import deepcopy

from mmengine.config import Config, ConfigDict
from mmengine.dist import master_only
from mmengine.evaluator import DumpResults
from mmengine.hooks import LoggerHook
from mmengine.runner import Runner

from mmattn.config import codebase_of, type_name
from mmattn.errors import UsageError

DUMP_SUFFIXES = ('.pkl', '.pickle')
# Without scopes: some are in the registry of mmengine.
TTA_MODELS = dict(
    mmdet=dict(
        type='DetTTAModel',
        tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100),
    ),
    mmseg=dict(type='SegTTAModel'),
    mmpretrain=dict(type='AverageClsScoreTTA'),
)


def draw_predictions(
    cfg: Config, show: bool, show_dir: str | None, wait_time: float
) -> None:
    """Turn on the visualization hook of the config's codebase.

    Args:
        cfg: The config, changed in place.
        show: Whether to open a window for each image.
        show_dir: Folder for the pictures, or None.
        wait_time: How long a window stays open, in seconds.

    Raises:
        UsageError: If the config has no visualization hook.
    """
    hook = (cfg.get('default_hooks') or {}).get('visualization')
    if hook is None:
        raise UsageError(
            '--show and --show-dir need default_hooks.visualization, which '
            f'{cfg.filename} lacks; add it to the config'
        )
    hook.show = show
    hook.wait_time = wait_time
    if codebase_of(cfg) == 'mmpretrain':
        hook.enable = True
        hook.out_dir = show_dir
        return
    hook.draw = True
    if show_dir is None:
        return
    if codebase_of(cfg) == 'mmseg':
        cfg.visualizer.save_dir = show_dir
    else:
        hook.test_out_dir = show_dir


def use_tta(cfg: Config) -> None:
    """Test with augmentations: the config's own, else flipped images.

    Raises:
        UsageError: If a config of another codebase has no augmentations, if
            mmdet would have to merge masks, or mmpretrain to draw pictures.
    """
    codebase = codebase_of(cfg)
    if codebase not in TTA_MODELS and not (
        'tta_model' in cfg and 'tta_pipeline' in cfg
    ):
        raise UsageError(
            '--tta needs tta_model and tta_pipeline, which '
            f'{cfg.filename} lacks; add them to the config'
        )
    hook = (cfg.get('default_hooks') or {}).get('visualization') or {}
    if codebase == 'mmpretrain' and hook.get('enable'):
        raise UsageError(
            'mmpretrain cannot draw predictions with --tta; remove --show '
            'and --show-dir'
        )
    if codebase == 'mmdet' and (cfg.model.get('roi_head') or {}).get(
        'mask_head'
    ):
        raise UsageError(
            'mmdet merges boxes but not masks; remove --tta, or test only '
            'the boxes with `--partial --cfg-options '
            'model.roi_head.mask_head=None test_evaluator.metric=bbox`'
        )
    dataset = read_dataset(cfg)
    cfg.setdefault('tta_model', TTA_MODELS.get(codebase))
    if 'tta_pipeline' not in cfg:
        cfg.tta_pipeline = _flipped(dataset.pipeline)
    dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)


def read_dataset(cfg: Config) -> ConfigDict:
    """The innermost test data set of a config, which has the pipeline."""
    dataset = cfg.test_dataloader.dataset
    while 'pipeline' not in dataset and 'dataset' in dataset:
        dataset = dataset.dataset
    return dataset


def dump_predictions(runner: Runner, out: str) -> None:
    """Write the predictions of the test to a pickle file."""
    metric = DumpResults
    if codebase_of(runner.cfg) == 'mmdet':
        from mmdet.evaluation import DumpDetResults  # packs the masks

        metric = DumpDetResults
    runner.test_evaluator.metrics.append(metric(out_file_path=out))


def write_metrics_once(runner: Runner) -> None:
    """Let one process write the file of metrics.

    mmengine lets all of them write it, at the same time.
    """
    for hook in runner.hooks:
        if isinstance(hook, LoggerHook):
            hook.after_test_epoch = master_only(hook.after_test_epoch)


def check_out(cfg: Config, out: str) -> None:
    """Check the argument of ``--out``; mmseg may write label maps.

    Raises:
        UsageError: If the name is not that of a pickle file and the codebase
            writes nothing else.
    """
    if out.endswith(DUMP_SUFFIXES):
        return
    if codebase_of(cfg) != 'mmseg':
        raise UsageError(f'--out must end in .pkl or .pickle, got {out!r}')
    os.makedirs(out, exist_ok=True)  # mmseg makes it in one process only
    cfg.test_evaluator.output_dir = out
    cfg.test_evaluator.keep_results = True


def _flipped(pipeline: list) -> list:
    # The labels come from the first image, which is not flipped.
    flips = [dict(type='RandomFlip', prob=prob) for prob in (0.0, 1.0)]
    pack = deepcopy(pipeline[-1])
    if type_name(pack.type) == 'PackDetInputs':
        # mmdet flips the boxes back: its default keys include the direction.
        pack.pop('meta_keys', None)
    return [
        *deepcopy(pipeline[:-1]),
        dict(type='TestTimeAug', transforms=[flips, [pack]]),
    ]
