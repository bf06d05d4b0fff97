"""Measure models beside each other, in one process and in turns.

python tools/benchmark.py FIRST [MODEL ...] [options]
"""

import argparse
import json
import shlex
import sys
from pathlib import Path

import preflight  # noqa: F401

import torch

from mmattn.analysis import report
from mmattn.analysis.comparison import Row, compare
from mmattn.analysis.machine import (
    DTYPES,
    Machine,
    list_versions,
    measure_machine,
)
from mmattn.analysis.subjects import OUTPUTS, read_subjects
from mmattn.analysis.trial import MODES, Settings
from mmattn.cli.usage import UsageError, run_command
from mmattn.visualization.benchmarks import (
    plot_cost,
    plot_growth,
)

ABOUT = """\
Measure models beside each other, in one process and in turns.

A MODEL is one of
  boat-swin-tiny                     an arch of ours; also cswin-small,
                                     swin-tiny, enltb-nano, ...
  mmattn.BOATSwin(arch='small')      a registered class, of any codebase
  configs/boat_swin/NAME.py          the backbone of a config
  mmdet::folder/NAME.py, mmpretrain:NAME
                                     the same, of an installed codebase
  timm:swin_tiny_patch4_window7_224  a model of timm, without its head
  file.py:Class(dim=96)              a class or function of a checkout
each with keyword arguments, if you like (quote the brackets). Nothing is
downloaded and no weights are read: they are random.
"""


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        'models',
        nargs='+',
        metavar='MODEL',
        help='what to measure; ratios are to the first one',
    )
    add(
        '--sizes',
        nargs='+',
        type=read_size,
        default=[(224, 224)],
        metavar='SIZE',
        help='sides of the images in pixels, or HEIGHTxWIDTH (default: 224)',
    )
    add('--batch', type=int, default=8, help='images (default: %(default)s)')
    add(
        '--modes',
        nargs='+',
        choices=MODES,
        default=list(MODES),
        help='inference: a forward pass in evaluation mode without gradients; '
        'training: forward and backward pass of the mean of all outputs, '
        'without optimizer (default: both)',
    )
    add(
        '--outputs',
        choices=OUTPUTS,
        default='last',
        help='what every model computes: its last map alone, as for a '
        'classifier, or a map of each stage, as for a detector; a class in '
        'a file computes what its forward pass computes (default: '
        '%(default)s)',
    )
    add(
        '--dtype',
        choices=list(DTYPES),
        default='float32',
        help='of images and weights (default: %(default)s)',
    )
    add(
        '--amp',
        action='store_true',
        help='keep the weights in float32 and autocast to --dtype',
    )
    add(
        '--channels-last',
        action='store_true',
        help='images and weights in the memory order NHWC',
    )
    add(
        '--compile',
        nargs='?',
        const='default',
        metavar='MODE',
        help='torch.compile each model, in this mode (default: eager)',
    )
    add(
        '--device',
        choices=['cpu', 'cuda'],
        default='cuda' if torch.cuda.is_available() else 'cpu',
        help='(default: %(default)s)',
    )
    add('--threads', type=int, help='of the CPU (default: what torch takes)')
    add(
        '--rounds',
        type=int,
        default=10,
        help='measurements of each model (default: %(default)s)',
    )
    add(
        '--min-seconds',
        type=float,
        default=0.2,
        help='a shorter step is repeated within a round (default: '
        '%(default)s)',
    )
    add(
        '--profile',
        nargs='?',
        type=int,
        const=10,
        default=0,
        metavar='N',
        help='also list the N operations that take most of each step (10, '
        'if no number is given); kernels on a GPU',
    )
    add(
        '--floor',
        action='store_true',
        help='also time every product of each model by itself, in the '
        'fastest way at hand: nothing that calls these is faster',
    )
    add(
        '--out',
        type=Path,
        metavar='DIR',
        help='new folder for results.json, results.csv, results.md, '
        'growth.png and cost.png (default: print the tables only)',
    )
    return parser.parse_args()


def read_size(text: str) -> tuple[int, int]:
    """Read ``224`` or ``800x1344`` as height and width."""
    height, *width = text.split('x')
    size = int(height), *map(int, width or [height])
    if len(size) != 2 or min(size) < 1:
        raise ValueError
    return size


def main() -> None:
    """Measure, tell and write."""
    args = parse_args()
    check_args(args)
    settings = make_settings(args)
    try:
        subjects = read_subjects(args.models, args.outputs)
    except (ImportError, OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    say('measuring the machine')
    machine = measure_machine(settings.device, settings.dtype)
    say(
        f'{machine.name}: {machine.matmul_rate / 1e9:.4g} GFLOP/s in a matrix '
        f'product, {machine.copy_bandwidth / 1e9:.4g} GB/s in a copy'
    )
    rows = []
    for size in args.sizes:
        try:
            rows += compare(subjects, size, args.modes, settings, say)
        except ValueError as error:
            raise UsageError(str(error)) from error
        if args.out is not None:  # what is done is safe
            write_results(args, rows, machine)
    print(report.to_markdown(rows, args.batch, machine), end='')


def check_args(args: argparse.Namespace) -> None:
    """Refuse what could only fail later."""
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise UsageError(
            '--device cuda expects a GPU, got a machine without one'
        )
    numbers = dict(batch=args.batch, rounds=args.rounds, threads=args.threads)
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise UsageError(
                f'--{name} expects a number from 1 up, got {value}'
            )
    out = args.out
    if out is not None and out.exists():
        if not out.is_dir() or any(out.iterdir()):
            raise UsageError(
                f'--out expects a new or empty folder, got {out}, which has '
                'something in it; name another one'
            )


def make_settings(args: argparse.Namespace) -> Settings:
    """Turn the command line into settings, and set the threads."""
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    return Settings(
        args.batch,
        torch.device(args.device),
        DTYPES[args.dtype],
        with_amp=args.amp,
        with_channels_last=args.channels_last,
        compile_mode=args.compile,
        rounds=args.rounds,
        min_seconds=args.min_seconds,
        top_operations=args.profile,
        with_floor=args.floor,
    )


def write_results(
    args: argparse.Namespace, rows: list[Row], machine: Machine
) -> None:
    """Write what was measured so far, in all forms."""
    args.out.mkdir(parents=True, exist_ok=True)
    facts = dict(
        command=shlex.join(['python', *sys.argv]),
        versions=list_versions(),
        threads=torch.get_num_threads(),
        machine=machine._asdict(),
        settings=vars(args) | dict(out=str(args.out)),
    )
    records = report.to_records(rows)
    whole = json.dumps(facts | dict(rows=records), indent=2)
    (args.out / 'results.json').write_text(whole + '\n')
    (args.out / 'results.csv').write_text(report.to_csv(rows))
    head = (
        f'`{facts["command"]}` on {machine.name}, {facts["threads"]} threads, '
        f'{machine.matmul_rate / 1e9:.4g} GFLOP/s in a matrix product, '
        f'{machine.copy_bandwidth / 1e9:.4g} GB/s in a copy; '
        + ', '.join(' '.join(pair) for pair in facts['versions'].items())
    )
    tables = report.to_markdown(rows, args.batch, machine)
    (args.out / 'results.md').write_text(f'{head}\n\n{tables}')
    plot_cost(records, machine.matmul_rate, args.out / 'cost.png')
    plot_growth(records, args.out / 'growth.png')


def say(line: str) -> None:
    """Tell the progress, apart from the results."""
    print(line, file=sys.stderr, flush=True)


if __name__ == '__main__':
    run_command(main)
