"""Publish a trained model in a zoo, where it can be loaded by name.

    python tools/publish_model.py CHECKPOINT --config FILE --name NAME

Writes the weights to ZOO/NAME as .pth and .safetensors files whose names
contain a digest, along with the complete config and a model card, and adds the
model to the zoo's metafile. Before that, a separate process loads the model by
name and must reproduce its metrics.
"""

import argparse
import importlib.util
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import preflight  # noqa: F401

import torch
from mmengine.config import Config
from mmengine.device import get_device

import mmattn
from mmattn.analysis import build_for_counting, count_config, tested_shape
from mmattn.checkpoints.metafiles import (
    add_entry,
    check_new_name,
    check_replaceable,
)
from mmattn.checkpoints.model_card import Published, metafile_entry, write_card
from mmattn.checkpoints.publishing import (
    Trained,
    read_training,
    write_published,
)
from mmattn.cli.console import output_to_file
from mmattn.cli.run_config import checkpoint_file, fill_loaders
from mmattn.cli.usage import UsageError, run_command
from mmattn.cli.weights import check_weights as check_fit
from mmattn.config import (
    nested_dicts,
    read_config,
    replace_sync_norms,
    type_name,
)
from mmattn.stack import CODEBASES, find_installed
from mmattn.zoo import SCHEME, zoo_folders

# mmdet rounds metrics to three digits; smaller differences are rounding.
TOLERANCE = 1e-4


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('checkpoint', help='checkpoint of a training')
    parser.add_argument(
        '--config',
        required=True,
        metavar='FILE',
        help='config of the training',
    )
    parser.add_argument(
        '--name', required=True, help='name of the model in the zoo'
    )
    parser.add_argument(
        '--metrics',
        metavar='FILE',
        help='metrics written by tools/test.py, WORK_DIR/TIME/TIME.json '
        '(default: measured)',
    )
    parser.add_argument(
        '--ema',
        action='store_true',
        help='publish the averaged (EMA) weights (default: the trained ones)',
    )
    parser.add_argument(
        '--zoo',
        default=zoo_folders()[0],
        type=Path,
        metavar='DIR',
        help='zoo to publish into (default: the first one in MMATTN_ZOO, else '
        '~/.cache/mmattn/zoo)',
    )
    parser.add_argument(
        '--force', action='store_true', help='replace the model if it exists'
    )
    return parser.parse_args()


def main() -> None:
    """Prepare and verify the model, then move it into the zoo."""
    args = parse_args()
    cfg = read_config(
        args.config,
        None,
        ('model', 'test_dataloader', 'test_evaluator', 'default_scope'),
        'publishing',
    )
    if cfg.default_scope not in CODEBASES or not cfg.model.get('backbone'):
        raise UsageError(
            f'publishing needs a config of {", ".join(CODEBASES)} with '
            f'model.backbone; {args.config} has '
            f'default_scope={cfg.default_scope!r} and '
            f'model.type={cfg.model.get("type")!r}'
        )
    name_classes(cfg._cfg_dict, cfg.default_scope)
    try:
        check_name(args.name, args.zoo, args.force)
        trained = read_training(checkpoint_file(args.checkpoint), args.ema)
        check_weights(cfg, trained, args.checkpoint)
        args.zoo.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=args.zoo) as folder:
            publish(args, cfg, trained, Path(folder))
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error


def name_classes(node: Any, scope: str) -> None:
    """Replace classes by their registered names.

    The config is written to a file, where a path such as
    ``mmdet.models.losses.smooth_l1_loss.L1Loss`` may lead to a function.
    """
    for _, part in nested_dicts(node):
        kind = part.get('type')
        package = getattr(kind, '__module__', 'torch').partition('.')[0]
        if callable(kind) and package != 'torch':
            is_near = package in (scope, 'mmcv', 'mmengine')
            part['type'] = ('' if is_near else f'{package}.') + kind.__name__


def check_name(name: str, zoo: Path, force: bool) -> None:
    """Check that the name is free, or replaceable with ``--force``.

    Only models of the zoo are replaceable, not folders that happen to have
    the name.
    """
    specs = [importlib.util.find_spec(codebase) for codebase in CODEBASES]
    check_new_name(name, zoo, [Path(s.origin).parent for s in specs if s])
    if not (zoo / name).exists():
        return
    if not force:
        raise FileExistsError(
            f'{zoo} already has a model {name}; choose another name, or '
            'replace it with --force'
        )
    check_replaceable(name, zoo)


def check_weights(cfg: Config, trained: Trained, path: str) -> None:
    """Check that the weights fit the config.

    Raises:
        UsageError: If a parameter is missing or has another shape.
    """
    with output_to_file(os.devnull):  # warnings about random weights
        model = build_for_counting(cfg)
        check_fit(model, trained.state_dict, path, whole=True)


def publish(
    args: argparse.Namespace, cfg: Config, trained: Trained, stage: Path
) -> None:
    """Create a zoo with only this model, verify it and move the model."""
    cfg.load_from, cfg.resume = None, False
    cfg.pop('work_dir', None)
    folder = stage / args.name
    folder.mkdir()
    files = write_published(trained, folder, args.name, cfg.pretty_text)
    if args.metrics is not None:
        measured = read_metrics(Path(args.metrics))
    else:
        print('measuring    with tools/test.py', flush=True)
        tested = args.checkpoint if trained.as_tested else files.pth
        measured = measure(files.config, tested, stage)
    with output_to_file(os.devnull):  # warnings about random weights
        model = describe(args.name, cfg, trained, files, measured)
    add_entry(stage, metafile_entry(model))
    write_card(model, folder / 'README.md')
    print('verifying    by name, in a separate process', flush=True)
    compare(measured, measure(args.name, SCHEME + args.name, stage))
    install(folder, args.zoo, metafile_entry(model))
    for name, value in measured.items():
        print(f'  {name} = {value:.6g}, reproduced from the published file')
    print(
        f'published    {args.name} in {args.zoo / args.name}\n'
        f'  files      {", ".join(file.name for file in files)}\n'
        f'  load it    python tools/test.py {args.name} {SCHEME}{args.name}'
    )
    if args.zoo.resolve() not in [path.resolve() for path in zoo_folders()]:
        print(f'  after      export MMATTN_ZOO={args.zoo.resolve()}')


def install(folder: Path, zoo: Path, entry: dict) -> None:
    """Move a model into a zoo; replacing the metafile replaces an old one."""
    target = zoo / folder.name
    target.mkdir(exist_ok=True)
    new = {file.name for file in folder.iterdir()}
    for name in new:
        (folder / name).replace(target / name)
    add_entry(zoo, entry)
    for old in target.glob(f'{folder.name}*.*'):
        if old.name not in new and old.is_file():
            old.unlink()


def measure(
    config: str | Path, checkpoint: str | Path, zoo: Path
) -> dict[str, float]:
    """Run tools/test.py in a separate process and return the metrics.

    Raises:
        UsageError: If it fails, with the end of its output.
    """
    with tempfile.TemporaryDirectory() as work_dir:
        tool = Path(__file__).with_name('test.py')
        command = [sys.executable, tool, config, checkpoint]
        done = subprocess.run(
            [*map(str, command), '--work-dir', work_dir],
            env=os.environ | {'MMATTN_ZOO': str(zoo)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        written = sorted(Path(work_dir).glob('*/*.json'))
        if done.returncode != 0 or not written:
            raise UsageError(
                f'testing {config} failed:\n{done.stdout[-2000:]}'
            )
        return read_metrics(written[-1])


def read_metrics(path: Path) -> dict[str, float]:
    """Read metrics, without the timings.

    Raises:
        UsageError: If the file does not exist or holds something else.
    """
    try:
        found = json.loads(path.read_text())
        metrics = {
            name: float(value)
            for name, value in found.items()
            if name.rpartition('/')[2] not in ('time', 'data_time')
        }
    except Exception as error:  # the file can hold anything
        raise UsageError(
            f'{path} is not a JSON file of metrics as tools/test.py writes '
            f'it: {error}'
        ) from error
    if not metrics:
        raise UsageError(f'{path} contains no metrics')
    return metrics


def compare(measured: dict[str, float], again: dict[str, float]) -> None:
    """Compare the metrics of two tests.

    Raises:
        UsageError: If one is missing or differs.
    """
    wrong = [
        f'{name} = {again.get(name)} instead of {value}'
        for name, value in measured.items()
        if not math.isclose(
            value, again.get(name, math.inf), rel_tol=TOLERANCE, abs_tol=1e-9
        )
        and not (math.isnan(value) and math.isnan(again.get(name, 0)))
    ]
    if wrong:
        raise UsageError(
            'nothing was published: the published file does not reproduce '
            f'the metrics: {"; ".join(wrong)}. Check that the metrics, the '
            'config and --ema belong to this checkpoint'
        )


def describe(
    name: str, cfg: Config, trained: Trained, files: tuple, measured: dict
) -> Published:
    """Collect the facts of the model card."""
    # The published config keeps its SyncBN.
    cfg = Config(cfg._cfg_dict.to_dict())
    replace_sync_norms(cfg.model)
    fill_loaders(cfg)
    shape = tested_shape(cfg, build_for_counting(cfg))
    cost = count_config(cfg, shape)
    root = str(cfg.test_dataloader.dataset.get('data_root') or '')
    device = get_device()
    environment = {'mmattn': mmattn.__version__, 'torch': torch.__version__}
    environment |= {i.distribution: i.version for i in find_installed()}
    if device == 'cuda':
        device = torch.cuda.get_device_name()
    loop = cfg.get('train_cfg') or {}
    schedule = {
        'Epochs': loop.get('max_epochs'),
        'Iterations': loop.get('max_iters'),
        'Batch Size': (cfg.get('auto_scale_lr') or {}).get('base_batch_size'),
    }
    return Published(
        name=name,
        codebase=cfg.default_scope,
        backbone=type_name(cfg.model.backbone.type),
        data=root.partition('data/')[2] or Path(root).name,
        files=tuple(file.name for file in files),
        parameters=cost.parameters,
        flops=cost.multiply_adds,
        shape=shape,
        metrics=measured,
        environment={**environment, 'on': device},
        seed=trained.seed,
        seconds=trained.seconds,
        schedule={k: v for k, v in schedule.items() if v is not None},
    )


if __name__ == '__main__':
    run_command(main)
