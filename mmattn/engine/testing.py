"""What the test command adds to a config: pictures, flips, dumped results."""

import os
from copy import deepcopy

from mmengine.config import Config, ConfigDict
from mmengine.evaluator import DumpResults
from mmengine.runner import Runner

from mmattn.engine.usage import UsageError

DUMP_SUFFIXES = ('.pkl', '.pickle')


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
            '--show and --show-dir expect default_hooks.visualization in '
            f'the config, got none in {cfg.filename}'
        )
    hook.show = show
    hook.wait_time = wait_time
    if cfg.get('default_scope') == 'mmpretrain':
        hook.enable = True
        hook.out_dir = show_dir
        return
    hook.draw = True
    if show_dir is None:
        return
    if cfg.get('default_scope') == 'mmseg':
        cfg.visualizer.save_dir = show_dir
    else:
        hook.test_out_dir = show_dir


def use_tta(cfg: Config) -> None:
    """Test with augmentations: the config's own, else flipped images.

    Raises:
        UsageError: If the config's codebase has no default and the config
            does not say what to do.
    """
    scope = cfg.get('default_scope')
    if scope not in ('mmdet', 'mmpretrain') and (
        'tta_model' not in cfg or 'tta_pipeline' not in cfg
    ):
        raise UsageError(
            '--tta expects tta_model and tta_pipeline in the '
            f'config, got none in {cfg.filename}'
        )
    dataset = cfg.test_dataloader.dataset
    while 'pipeline' not in dataset and 'dataset' in dataset:
        dataset = dataset.dataset
    if scope == 'mmdet':
        cfg.setdefault(
            'tta_model',
            dict(
                type='DetTTAModel',
                tta_cfg=dict(
                    nms=dict(type='nms', iou_threshold=0.5), max_per_img=100
                ),
            ),
        )
    elif scope == 'mmpretrain':
        cfg.setdefault('tta_model', dict(type='AverageClsScoreTTA'))
    if 'tta_pipeline' not in cfg:
        cfg.tta_pipeline = _flipped(dataset.pipeline)
    dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)


def dump_predictions(runner: Runner, out: str) -> None:
    """Write the predictions of the coming test to a pickle file."""
    metric = DumpResults
    if runner.cfg.get('default_scope') == 'mmdet':
        from mmdet.evaluation import DumpDetResults  # packs the masks

        metric = DumpDetResults
    runner.test_evaluator.metrics.append(metric(out_file_path=out))


def check_out(cfg: Config, out: str) -> None:
    """Check the argument of ``--out``; mmseg may write label maps.

    Raises:
        UsageError: If the name is not that of a pickle file and the codebase
            writes nothing else.
    """
    if out.endswith(DUMP_SUFFIXES):
        return
    if cfg.get('default_scope') != 'mmseg':
        raise UsageError(
            '--out expects a file name that ends in .pkl or '
            f'.pickle, got {out!r}'
        )
    cfg.test_evaluator.output_dir = os.fspath(out)
    cfg.test_evaluator.keep_results = True


def _flipped(pipeline: list) -> list:
    flips = [dict(type='RandomFlip', prob=prob) for prob in (1.0, 0.0)]
    pack = deepcopy(pipeline[-1])
    if pack.type.endswith('PackDetInputs'):
        # The merged boxes are flipped back: the samples must say how.
        pack.meta_keys = (
            'img_id',
            'img_path',
            'ori_shape',
            'img_shape',
            'scale_factor',
            'flip',
            'flip_direction',
        )
    return [
        *deepcopy(pipeline[:-1]),
        dict(type='TestTimeAug', transforms=[flips, [pack]]),
    ]
