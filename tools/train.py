"""Train a model of mmdet, mmseg or mmpretrain from a config file.

python tools/train.py CONFIG [options]
"""

import argparse

import preflight  # noqa: F401

from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmattn.cli import learning_rate, run_config
from mmattn.cli.arguments import add_cfg_options, add_launcher, parse_args
from mmattn.cli.launch import end_processes, prepare_cpu
from mmattn.cli.usage import run_command
from mmattn.cli.weights import refuse_foreign_weights
from mmattn.config import read_config
from mmattn.engine.buffers import BroadcastBuffers


def make_parser() -> argparse.ArgumentParser:
    """The options of this tool."""
    parser = argparse.ArgumentParser(description='Train a model.')
    parser.add_argument('config', help='config file or the name of a model')
    parser.add_argument(
        '--work-dir',
        help='folder of logs and checkpoints (default: work_dirs/CONFIG)',
    )
    parser.add_argument(
        '--amp',
        action='store_true',
        help='train in mixed precision: bfloat16 if the GPU has it, else '
        'float16, unless the config names a dtype',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='multiply the learning rate by the real batch size over '
        'auto_scale_lr.base_batch_size',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='continue an interrupted training, from the last checkpoint of '
        'the work folder or from the one given: weights, optimizer, '
        'schedule and iteration come from it, so a changed learning rate in '
        'the config has no effect',
    )
    parser.add_argument(
        '--load-from',
        metavar='CHECKPOINT',
        help='start a new training at iteration 0 from the weights of a '
        'checkpoint; optimizer and schedule are those of the config',
    )
    add_cfg_options(
        parser,
        'train_cfg.max_epochs=1 or model.backbone.init_cfg=None',
    )
    add_launcher(parser)
    return parser


def main() -> None:
    """Turn the command line into a config and train."""
    args = parse_args(make_parser())
    run_config.forbid_code_in_checkpoints()
    cfg = read_config(
        args.config,
        args.cfg_options,
        needs=('model', 'train_dataloader', 'train_cfg', 'optim_wrapper'),
        purpose='training',
    )
    cfg.launcher = args.launcher
    run_config.set_work_dir(cfg, args.work_dir)
    run_config.set_start(cfg, args.resume, args.load_from)
    run_config.check_channels(cfg)
    run_config.check_pretrained(cfg)
    run_config.check_data(cfg, ('train', 'val'))
    run_config.fill_loaders(cfg)
    if args.amp:
        run_config.enable_amp(cfg)
    if args.auto_scale_lr:
        learning_rate.enable_lr_scaling(cfg)
    prepare_cpu(cfg)
    train(cfg)
    end_processes()


def train(cfg: Config) -> None:
    """Build the config's Runner and train."""
    build = RUNNERS.build if 'runner_type' in cfg else Runner.from_cfg
    runner = build(cfg)
    refuse_foreign_weights(runner.model, cfg.get('load_from'))
    runner.register_hook(learning_rate.LearningRateReport())
    runner.register_hook(BroadcastBuffers())
    runner.train()


if __name__ == '__main__':
    run_command(main)
