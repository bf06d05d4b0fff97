"""Train a model of mmdet, mmseg or mmpretrain from a config file.

python tools/train.py CONFIG [options]
"""

import argparse

import preflight  # noqa: F401

from mmengine.config import Config

from mmattn.cli import learning_rate, run_config
from mmattn.cli.arguments import add_cfg_options, add_launcher, parse_args
from mmattn.cli.data import report_data_errors
from mmattn.cli.launch import (
    end_processes,
    end_with_launcher,
    end_workers_with_process,
    prepare_cpu,
)
from mmattn.cli.resume import report_resume_errors
from mmattn.cli.usage import SHOW_TRACEBACK, UsageError, run_command
from mmattn.cli.weights import CheckWeights, add_options, verify_checkpoints
from mmattn.config import read_config
from mmattn.engine.atomic_checkpoints import is_full_disk, report_full_disk
from mmattn.engine.training import build_runner


def make_parser() -> argparse.ArgumentParser:
    """The options of this tool."""
    parser = argparse.ArgumentParser(
        description='Train a model of mmdet, mmseg or mmpretrain.'
    )
    parser.add_argument('config', help='config file or model name')
    parser.add_argument(
        '--work-dir',
        metavar='DIR',
        help='folder for logs and checkpoints (default: work_dir of the '
        'config, else work_dirs/CONFIG)',
    )
    parser.add_argument(
        '--amp',
        action='store_true',
        help='train in mixed precision: the dtype of the config, else '
        'bfloat16 if the GPU supports it, else float16 (always for mmdet)',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='multiply the learning rate by the total batch size divided by '
        'auto_scale_lr.base_batch_size of the config',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='resume a training from CHECKPOINT, or if none is given from the '
        'newest complete one in the work folder; weights, optimizer, '
        'schedule, iteration and seed come from it, so a new learning rate in '
        'the config has no effect',
    )
    parser.add_argument(
        '--start-if-none',
        action='store_true',
        help='with --resume: start a new training if there is no checkpoint '
        '(default: fail)',
    )
    parser.add_argument(
        '--load-from',
        metavar='CHECKPOINT',
        help='start a new training at iteration 0 with the weights of '
        'CHECKPOINT; optimizer and schedule come from the config',
    )
    add_options(parser)
    add_cfg_options(
        parser, 'train_cfg.max_epochs=1 model.backbone.init_cfg=None'
    )
    add_launcher(parser)
    return parser


def main() -> None:
    """Turn the command line into a config and train."""
    args = parse_args(make_parser())
    if args.launcher == 'pytorch':
        end_with_launcher()
    end_workers_with_process()
    run_config.forbid_code_in_checkpoints()
    verify_checkpoints()
    cfg = read_config(
        args.config,
        args.cfg_options,
        needs=('model', 'train_dataloader', 'train_cfg', 'optim_wrapper'),
        purpose='training',
    )
    cfg.launcher = args.launcher
    run_config.set_work_dir(cfg, args.work_dir)
    run_config.set_start(cfg, args.resume, args.load_from, args.start_if_none)
    run_config.check_channels(cfg)
    run_config.check_pretrained(cfg)
    run_config.check_data(cfg, ('train', 'val'))
    run_config.check_length(cfg)
    run_config.fill_loaders(cfg)
    if args.amp:
        run_config.enable_amp(cfg)
    if args.auto_scale_lr:
        learning_rate.enable_lr_scaling(cfg)
    prepare_cpu(cfg)
    with report_full_disk(cfg.work_dir):
        train(cfg, partial=args.partial, allow_nonfinite=args.allow_nonfinite)
    end_processes()


def train(cfg: Config, partial: bool, allow_nonfinite: bool) -> None:
    """Build the config's Runner and train.

    Args:
        cfg: The config.
        partial, allow_nonfinite: Of the weights in its ``load_from``, see
            ``CheckWeights``.
    """
    runner = build_runner(cfg)
    report_data_errors(runner)
    report_resume_errors(runner)
    if cfg.get('load_from'):
        is_whole = bool(cfg.get('resume'))
        check = CheckWeights(
            cfg.load_from,
            whole=is_whole,
            partial=partial,
            allow_nonfinite=allow_nonfinite,
        )
        runner.register_hook(check)
    runner.register_hook(learning_rate.LearningRateReport())
    try:
        runner.train()
    except UsageError:
        raise
    except Exception as error:
        if runner.iter > 0 or is_full_disk(error):
            raise
        raise UsageError(
            'the training does not get beyond its first iteration: '
            f'{type(error).__name__}: {error}\n{SHOW_TRACEBACK}'
        ) from error


if __name__ == '__main__':
    run_command(main)
