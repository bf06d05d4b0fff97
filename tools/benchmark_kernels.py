"""Measure single operations beside a copy of their bytes.

python tools/benchmark_kernels.py [options]
"""

import argparse
import sys
from pathlib import Path

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

from mmattn.analysis.kernels import measure_kernels, to_markdown  # noqa: E402
from mmattn.analysis.machine import measure_machine  # noqa: E402
from mmattn.analysis.trial import DTYPES  # noqa: E402
from mmattn.engine.usage import UsageError, run_command  # noqa: E402

# Maps of the first and the third stage of a tiny classifier at 224 x 224
# pixels, of the first stage of a detector at 800 x 1344: images relative to
# --batch, height, width, heads.
MAPS = ((1, 56, 56, 3), (1, 14, 14, 12), (1 / 64, 200, 336, 3))


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Time the implementations of windows, clusters and '
        'mixed convolutions on maps of a tiny backbone, as a share of the '
        'bandwidth of a copy.'
    )
    add = parser.add_argument
    add('--batch', type=int, default=128, help='images (default: %(default)s)')
    add(
        '--device',
        choices=['cpu', 'cuda'],
        default='cuda' if torch.cuda.is_available() else 'cpu',
        help='(default: %(default)s)',
    )
    add(
        '--dtype',
        choices=list(DTYPES),
        default='bfloat16',
        help='(default: %(default)s)',
    )
    add('--rounds', type=int, default=5, help='(default: %(default)s)')
    add('--out', type=Path, metavar='FILE', help='a page for the table')
    return parser.parse_args()


def main() -> None:
    """Measure and tell."""
    args = parse_args()
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise UsageError(
            '--device cuda expects a GPU, got a machine without one'
        )
    if min(args.batch, args.rounds) < 1:
        raise UsageError(
            '--batch and --rounds expect numbers from 1 up, got '
            f'{args.batch} and {args.rounds}'
        )
    device, dtype = torch.device(args.device), DTYPES[args.dtype]
    machine = measure_machine(device, dtype)
    rows = []
    for share, height, width, heads in MAPS:
        rows += measure_kernels(
            max(1, round(share * args.batch)),
            (height, width),
            heads,
            device,
            dtype,
            machine.copy_bandwidth,
            args.rounds,
            lambda line: print(line, file=sys.stderr, flush=True),
        )
    page = (
        f'`{" ".join(sys.argv)}` on {machine.name}, torch '
        f'{torch.__version__}, {args.dtype}, '
        f'{machine.copy_bandwidth / 1e9:.4g} GB/s in a copy\n\n'
        + to_markdown(rows)
    )
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(page)
    print(page, end='')


if __name__ == '__main__':
    run_command(main)
