"""Train a small model on digit scenes and draw its predictions.

    python tools/quickstart.py                      # Mask R-CNN on BOAT-Swin
    python tools/quickstart.py --task all --backbone swin

Takes a few minutes per task on two CPU cores and downloads nothing.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from preflight import ROOT

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from pictures import draw_predictions

from mmattn.cli.console import output_to_file
from mmattn.cli.launch import end_workers_with_process, prepare_cpu
from mmattn.cli.progress import ProgressReport, format_time
from mmattn.cli.run_config import fill_loaders
from mmattn.cli.usage import (
    INTERRUPTED,
    UsageError,
    is_interrupt,
    run_command,
)
from mmattn.config import nested_dicts
from mmattn.datasets import make_digit_folder
from mmattn.engine.atomic_checkpoints import report_full_disk
from mmattn.engine.training import build_runner

DATA_ROOT = 'data/digit_scenes'


class Metric(NamedTuple):
    """A validation metric: mmengine's key, ours, a label, the maximum."""

    key: str
    name: str
    label: str
    full: float = 1.0


class Task(NamedTuple):
    """Differences between the codebases."""

    config: str
    model: str
    metrics: tuple[Metric, ...]
    num_pictures: int
    columns: int


# In the order in which `--task all` runs them.
TASKS = dict(
    cls=Task(
        '{}-nano_1xb32-25e_digits.py',
        'Image classifier',
        (Metric('accuracy/top1', 'top1', 'top-1 accuracy (%)', 100.0),),
        40,
        8,
    ),
    seg=Task(
        'upernet_{}-nano_1xb8-8e_digits.py',
        'UperNet',
        (Metric('mIoU', 'mIoU', 'mean IoU (%)', 100.0),),
        6,
        2,
    ),
    det=Task(
        'mask-rcnn_{}-nano_fpn_1xb8-8e_digits.py',
        'Mask R-CNN',
        (
            Metric('coco/bbox_mAP', 'bbox_mAP', 'box mAP'),
            Metric('coco/segm_mAP', 'segm_mAP', 'mask mAP'),
        ),
        8,
        2,
    ),
)
# Name of a backbone in the file names of configs, and its folder there.
BACKBONES = {
    'boat-cswin': 'boat_cswin',
    'boat-swin': 'boat_swin',
    'cswin': 'cswin',
    'enltb': 'attention_pyramid',
    'key-value': 'attention_pyramid',
    'sliding-window': 'attention_pyramid',
    'smt': 'smt',
    'swin': 'swin',
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Train a small model on digit scenes, evaluate it, and '
        'draw its predictions.'
    )
    parser.add_argument(
        '--task',
        choices=[*TASKS, 'all'],
        default='det',
        help='classification (mmpretrain), segmentation (mmseg), detection '
        '(mmdet) or all three (default: %(default)s)',
    )
    parser.add_argument(
        '--backbone',
        choices=list(BACKBONES),
        default='boat-swin',
        help='backbone, in its nano arch (default: %(default)s)',
    )
    parser.add_argument(
        '--data-root',
        default=DATA_ROOT,
        metavar='DIR',
        help='folder of the digit scenes, created if missing (default: '
        '%(default)s)',
    )
    parser.add_argument(
        '--work-dir',
        metavar='DIR',
        help='new folder for the results (default: work_dirs/quickstart/'
        'TASK_BACKBONE_TIME)',
    )
    parser.add_argument(
        '--epochs',
        type=int,
        metavar='N',
        help='number of epochs (default: that of the config, 8 or 25)',
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        metavar='N',
        help='random seed of the training (default: %(default)s)',
    )
    parser.add_argument(
        '--publish',
        action='store_true',
        help='publish the model in the local zoo (MMATTN_ZOO, else '
        '~/.cache/mmattn/zoo), from where it can be loaded by name',
    )
    args = parser.parse_args(argv)
    if args.epochs is not None and args.epochs < 1:
        parser.error(f'--epochs must be at least 1, got {args.epochs}')
    return args


def main() -> None:
    """Run one task here, or each of them in its own process."""
    args = parse_args()
    if args.task == 'all':
        run_all(args)
        return
    end_workers_with_process()
    say(f'Step 1 of 3: digit scenes in {args.data_root}')
    prepare_data(args.data_root)
    work_dir = make_work_dir(args)
    task = TASKS[args.task]
    cfg = build_config(args, work_dir)
    say(
        f'Step 2 of 3: {task.model} on a {args.backbone} nano backbone, '
        f'{cfg.train_cfg.max_epochs} epochs (full log: {work_dir}/log.txt)'
    )
    runner, seconds = train(cfg, task, work_dir)
    say('Step 3 of 3: pictures of ground truth and predictions')
    with output_to_file(work_dir / 'log.txt'):
        draw_predictions(
            runner,
            task.num_pictures,
            task.columns,
            work_dir / 'predictions.png',
        )
    if args.publish:
        publish(runner, task, work_dir)
    summarize(runner, task, args.backbone, work_dir, seconds)


def run_all(args: argparse.Namespace) -> None:
    """Run each task in its own process: codebases set global defaults."""
    for name in TASKS:
        # Of an option given twice, argparse takes the last.
        command = [sys.executable, __file__, *sys.argv[1:], '--task', name]
        if args.work_dir is not None:
            command += ['--work-dir', os.path.join(args.work_dir, name)]
        say(f'\n=== {name}: {TASKS[name].model} ===')
        process = subprocess.Popen(command)
        try:
            status = process.wait()
        except KeyboardInterrupt:  # the child prints that it was interrupted
            process.wait()
            sys.exit(INTERRUPTED)
        if status != 0:
            sys.exit(status)


def prepare_data(root: str) -> None:
    """Create the digit scenes, or check that they are complete.

    Raises:
        UsageError: If the folder contains something else.
    """
    try:
        folder = make_digit_folder(root)
    except (OSError, ImportError) as error:
        raise UsageError(
            f'{error}\n--force is an option of tools/make_digit_scenes.py; '
            '--data-root sets another folder'
        ) from error
    say('  created' if folder.is_new else '  already there')


def make_work_dir(args: argparse.Namespace) -> Path:
    """Make a new folder for this run.

    Raises:
        UsageError: If ``--work-dir`` exists and is not empty.
    """
    if args.work_dir is not None:
        path = Path(args.work_dir)
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise UsageError(
                f'--work-dir must be a new or empty folder, got {path}, '
                'which exists; set another one'
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f'cannot create --work-dir: {error}') from error
        return path
    stamp = time.strftime('%Y%m%d-%H%M%S')
    name = f'{args.task}_{args.backbone}_{stamp}'
    for suffix in ('', *(f'-{n}' for n in range(2, 100))):
        path = Path('work_dirs', 'quickstart', name + suffix)
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path
    raise UsageError(f'{path.parent} has a hundred runs of this second')


def build_config(args: argparse.Namespace, work_dir: Path) -> Config:
    """Return the task's config with the options of the command line."""
    folder = find_configs() / BACKBONES[args.backbone]
    name = TASKS[args.task].config.format(args.backbone)
    cfg = Config.fromfile(folder / name)
    for _, node in nested_dicts(cfg._cfg_dict):
        for key, value in node.items():
            if isinstance(value, str) and value.startswith(DATA_ROOT):
                node[key] = value.replace(DATA_ROOT, args.data_root, 1)
    cfg.work_dir = str(work_dir)
    cfg.randomness = dict(seed=args.seed)
    if args.epochs is not None:
        cfg.train_cfg.max_epochs = args.epochs
        for scheduler in cfg.param_scheduler:
            if scheduler.by_epoch:
                scheduler.end = args.epochs
                scheduler.begin = min(scheduler.begin, args.epochs - 1)
    fill_loaders(cfg)
    prepare_cpu(cfg)
    return cfg


def find_configs() -> Path:
    """Return the folder of the configs, of a clone or of an installation."""
    import mmattn

    inside = Path(mmattn.__file__).parent / '.mim' / 'configs'
    return ROOT / 'configs' if (ROOT / 'configs').is_dir() else inside


def train(cfg: Config, task: Task, work_dir: Path) -> tuple[Runner, float]:
    """Train and evaluate; return the runner and the seconds it took."""
    labels = {metric.key: metric.label for metric in task.metrics}
    log = work_dir / 'log.txt'
    try:
        with output_to_file(log) as terminal, report_full_disk(cfg.work_dir):
            runner = build_runner(cfg)
            runner.register_hook(
                ProgressReport(lambda line: print(line, file=terminal), labels)
            )
            start = time.monotonic()
            runner.train()
            return runner, time.monotonic() - start
    except Exception as error:
        if not isinstance(error, UsageError) and not is_interrupt(error):
            print(f'The training failed; its log is {log}.', file=sys.stderr)
        raise


def summarize(
    runner: Runner, task: Task, backbone: str, work_dir: Path, seconds: float
) -> None:
    """Print a summary; results in the last line."""
    model = runner.model
    total = sum(p.numel() for p in model.parameters()) / 1e6
    inner = sum(p.numel() for p in model.backbone.parameters()) / 1e6
    device = next(model.parameters()).device.type
    where = device
    if device == 'cpu':
        threads = torch.get_num_threads()
        where = f'{threads} CPU thread' + 's' * (threads > 1)
    checkpoint = find_checkpoint(runner, work_dir)
    say(
        f'\n{task.model} on a {backbone} nano backbone: {total:.2f} M '
        f'parameters, {inner:.2f} M of them in the backbone.\n'
        f'Trained for {runner.max_epochs} epochs of '
        f'{len(runner.train_dataloader.dataset)} images, evaluated on '
        f'{len(runner.val_dataloader.dataset)}: {format_time(seconds)} min '
        f'on {where}.\n'
        f'  predictions  {work_dir / "predictions.png"}\n'
        f'  checkpoint   {checkpoint}\n'
        f'  log          {work_dir / "log.txt"}'
    )
    scores = read_scores(runner, task)
    results = ' '.join(
        f'{metric.name}={scores[metric.key] / metric.full:.3f}'
        for metric in task.metrics
    )
    say(f'{results} train_seconds={seconds:.0f}')


def publish(runner: Runner, task: Task, work_dir: Path) -> None:
    """Publish the last checkpoint with tools/publish_model.py.

    Exits with its status if it fails.
    """
    config = work_dir / Path(runner.cfg.filename).name
    metrics = work_dir / 'metrics.json'
    metrics.write_text(json.dumps(read_scores(runner, task)))
    name = f'{config.stem}_{runner.timestamp.replace("_", "-")}'
    say(f'Publishing as {name}')
    done = subprocess.run(
        [
            *(sys.executable, Path(__file__).with_name('publish_model.py')),
            *(find_checkpoint(runner, work_dir), '--config', config),
            *('--name', name, '--metrics', metrics),
        ]
    )
    if done.returncode != 0:
        sys.exit(done.returncode)


def find_checkpoint(runner: Runner, work_dir: Path) -> Path:
    """The checkpoint of the last epoch."""
    return work_dir / f'epoch_{runner.max_epochs}.pth'


def read_scores(runner: Runner, task: Task) -> dict[str, float]:
    """The last validation's metrics, by their names in the codebase."""
    scalars = runner.message_hub.log_scalars
    return {
        metric.key: float(scalars[f'val/{metric.key}'].current())
        for metric in task.metrics
    }


def say(line: str) -> None:
    """Print at once, also into a pipe."""
    print(line, flush=True)


if __name__ == '__main__':
    run_command(main)
