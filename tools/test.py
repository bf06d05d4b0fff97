"""Test a model of mmdet, mmseg or mmpretrain and print its metrics.

python tools/test.py CONFIG CHECKPOINT [options]
"""

import argparse

import preflight  # noqa: F401

from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmattn.cli import evaluation, run_config
from mmattn.cli.arguments import add_cfg_options, add_launcher, parse_args
from mmattn.cli.data import report_data_errors
from mmattn.cli.launch import (
    end_processes,
    end_with_launcher,
    end_workers_with_process,
    prepare_cpu,
)
from mmattn.cli.usage import run_command
from mmattn.cli.weights import CheckWeights, add_options, verify_checkpoints
from mmattn.config import read_config
from mmattn.inference.hook import OptimizeForInferenceHook


def make_parser() -> argparse.ArgumentParser:
    """The options of this tool."""
    parser = argparse.ArgumentParser(
        description='Test a model of mmdet, mmseg or mmpretrain and print its '
        'metrics.'
    )
    parser.add_argument('config', help='config file or model name')
    parser.add_argument(
        'checkpoint', help='path, URL or mmattn://NAME of a model'
    )
    parser.add_argument(
        '--work-dir',
        metavar='DIR',
        help='folder for logs and metrics (default: work_dir of the config, '
        'else work_dirs/CONFIG)',
    )
    parser.add_argument(
        '--out',
        metavar='FILE',
        help='pickle file to write the predictions to; for mmseg also a '
        'folder to write label maps to',
    )
    parser.add_argument(
        '--show', action='store_true', help='show predictions in a window'
    )
    parser.add_argument(
        '--show-dir',
        metavar='DIR',
        help='folder to write pictures of the predictions to',
    )
    parser.add_argument(
        '--wait-time',
        type=float,
        default=2,
        metavar='SECONDS',
        help='seconds that --show displays a picture (default: %(default)s)',
    )
    parser.add_argument(
        '--tta',
        action='store_true',
        help='test-time augmentation: tta_model and tta_pipeline of the '
        'config, else horizontal flips',
    )
    parser.add_argument(
        '--optimize',
        action='store_true',
        help='test a copy of the model that is optimized for inference on a '
        'CPU, see docs/inference.md',
    )
    add_options(parser, needs_heads=True)
    add_cfg_options(parser, 'test_dataloader.batch_size=1')
    add_launcher(parser)
    return parser


def main() -> None:
    """Turn the command line into a config and test."""
    args = parse_args(make_parser())
    if args.launcher == 'pytorch':
        end_with_launcher()
    end_workers_with_process()
    run_config.forbid_code_in_checkpoints()
    verify_checkpoints()
    cfg = read_config(
        args.config,
        args.cfg_options,
        needs=('model', 'test_dataloader', 'test_cfg', 'test_evaluator'),
        purpose='testing',
    )
    cfg.launcher = args.launcher
    cfg.load_from = run_config.checkpoint_file(args.checkpoint)
    cfg.resume = False
    run_config.set_work_dir(cfg, args.work_dir)
    run_config.check_data(cfg, ('test',))
    run_config.fill_loaders(cfg)
    if args.out is not None:
        evaluation.check_out(cfg, args.out)
    if args.show or args.show_dir:
        evaluation.draw_predictions(
            cfg, args.show, args.show_dir, args.wait_time
        )
    if args.tta:
        evaluation.use_tta(cfg)
    prepare_cpu(cfg)
    test(cfg, args)
    end_processes()


def test(cfg: Config, args: argparse.Namespace) -> None:
    """Build the config's Runner and test."""
    build = RUNNERS.build if 'runner_type' in cfg else Runner.from_cfg
    runner = build(cfg)
    report_data_errors(runner)
    check = CheckWeights(
        cfg.load_from,
        whole=True,
        partial=args.partial,
        allow_nonfinite=args.allow_nonfinite,
    )
    runner.register_hook(check)
    if args.out is not None and args.out.endswith(evaluation.DUMP_SUFFIXES):
        evaluation.dump_predictions(runner, args.out)
    if args.optimize:
        runner.register_hook(OptimizeForInferenceHook())
    evaluation.write_metrics_once(runner)
    runner.test()


if __name__ == '__main__':
    run_command(main)
