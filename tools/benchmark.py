"""Measure models beside each other, in one process and in turns.

python tools/benchmark.py FIRST [MODEL ...] [options]
"""

import argparse
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if (ROOT / 'mmattn' / '__init__.py').is_file():
    sys.path.insert(0, str(ROOT))  # a clone runs from its own source

from mmattn.stack import check_stack  # noqa: E402

try:
    check_stack()
except ImportError as missing:
    print(f'{Path(__file__).name}: error: {missing}', file=sys.stderr)
    sys.exit(2)

import torch  # noqa: E402

import mmattn  # noqa: E402
from mmattn.analysis import comparison, machine, report  # noqa: E402
from mmattn.analysis.subjects import OUTPUTS, read_subjects  # noqa: E402
from mmattn.engine.usage import UsageError, run_command  # noqa: E402

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
        choices=comparison.MODES,
        default=list(comparison.MODES),
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
        choices=list(comparison.DTYPES),
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
    add('--out', type=Path, metavar='DIR', help='folder for the results')
    return parser.parse_args()


def read_size(text: str) -> tuple[int, int]:
    """Read ``224`` or ``800x1344`` as height and width."""
    height, _, width = text.partition('x')
    return int(height), int(width or height)


def main() -> None:
    """Measure, tell and write."""
    args = parse_args()
    settings = read_settings(args)
    try:
        subjects = read_subjects(args.models, args.outputs)
    except (ImportError, OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    reached = machine.measure_machine(settings.device, settings.dtype)
    say(
        f'{reached.name}: {reached.matmul_rate / 1e9:.4g} GFLOP/s in a matrix '
        f'product, {reached.copy_bandwidth / 1e9:.4g} GB/s in a copy'
    )
    rows = []
    for size in args.sizes:
        try:
            rows += comparison.compare(
                subjects, size, args.modes, settings, say
            )
        except ValueError as error:
            raise UsageError(str(error)) from error
    markdown = report.to_markdown(rows, args.batch, reached)
    if len(args.sizes) > 1:
        markdown += '\n' + report.growth_to_markdown(rows, args.batch)
    print(markdown, end='')
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        facts = collect_facts()
        (args.out / 'results.json').write_text(
            report.to_json(rows, facts=facts, machine=reached._asdict())
        )
        (args.out / 'results.csv').write_text(report.to_csv(rows))
        (args.out / 'results.md').write_text(markdown)


def read_settings(args: argparse.Namespace) -> comparison.Settings:
    """Check what the command line asks for."""
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    return comparison.Settings(
        args.batch,
        torch.device(args.device),
        comparison.DTYPES[args.dtype],
        args.amp,
        args.channels_last,
        args.compile,
        args.rounds,
        args.min_seconds,
    )


def collect_facts() -> dict[str, Any]:
    """What a reader of the numbers needs to know about them."""
    return dict(
        command=shlex.join(['python', *sys.argv]),
        threads=torch.get_num_threads(),
        python=platform.python_version(),
        torch=torch.__version__,
        mmattn=mmattn.__version__,
    )


def say(line: str) -> None:
    """Tell the progress, apart from the results."""
    print(line, file=sys.stderr, flush=True)


if __name__ == '__main__':
    run_command(main)
