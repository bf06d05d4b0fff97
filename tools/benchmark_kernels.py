"""Measure single operations beside a copy of their bytes.

python tools/benchmark_kernels.py [options]

It needs torch alone, and Triton for the kernels of a GPU.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if (ROOT / 'mmattn' / '__init__.py').is_file():
    sys.path.insert(0, str(ROOT))  # a clone runs from its own source

import torch  # noqa: E402

from mmattn.analysis.kernels import measure_kernels, to_markdown  # noqa: E402
from mmattn.analysis.machine import DTYPES, measure_machine  # noqa: E402

Map = tuple[int, int, int, int]
# Maps of the first and the third stage of a tiny classifier at 224 x 224
# pixels, of the first stage of a detector at 800 x 1344: images relative to
# --batch, height, width, heads.
MAPS = ((1, 56, 56, 3), (1, 14, 14, 12), (1 / 64, 200, 336, 3))
CAPABILITIES = (80, 90)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Time the implementations of windows, clusters and '
        'mixed convolutions on maps of a tiny backbone, as a share of the '
        'bandwidth of a copy. Or compile the kernels and tell what they '
        'take, which needs no GPU.'
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
    add(
        '--resources',
        type=int,
        choices=CAPABILITIES,
        nargs='?',
        const=90,
        metavar='CAPABILITY',
        help='measure nothing: compile the kernels for a GPU of this compute '
        'capability, 80 (A100) or 90 (H100, H200; the default), and tell '
        'what they take',
    )
    add('--out', type=Path, metavar='FILE', help='a page for the table')
    args = parser.parse_args()
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda expects a GPU, got a machine without one')
    if min(args.batch, args.rounds) < 1:
        parser.error(
            '--batch and --rounds expect numbers from 1 up, got '
            f'{args.batch} and {args.rounds}'
        )
    if args.resources is not None:
        reason = why_nothing_compiles()
        if reason:
            parser.error(f'--resources {reason}')
    return args


def why_nothing_compiles() -> str | None:
    """What compiling kernels wants and does not find here."""
    from mmattn.ops.triton_kernels import table

    reason = table.missing_to_compile()
    if reason:
        return f'cannot compile: {reason}'
    if os.environ.get('TRITON_INTERPRET') == '1':
        return 'expects TRITON_INTERPRET not to be set, got 1'
    return None


def main() -> None:
    """Measure and tell."""
    args = parse_args()
    maps = [(max(1, round(n * args.batch)), *size) for n, *size in MAPS]
    head = f'`{" ".join(sys.argv)}`, torch {torch.__version__}, {args.dtype}, '
    find = measure if args.resources is None else compile_only
    for about, table in find(args, maps):
        page = f'{head}{about}\n\n{table}'
        if args.out is not None:  # what is done is safe
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(page)
    print(page, end='')


def measure(
    args: argparse.Namespace, maps: Sequence[Map]
) -> Iterator[tuple[str, str]]:
    """Time all implementations; after each map, the machine and the table."""
    device, dtype = torch.device(args.device), DTYPES[args.dtype]
    machine = measure_machine(device, dtype)
    rows = []
    for images, height, width, heads in maps:
        rows += measure_kernels(
            images,
            (height, width),
            heads,
            device,
            dtype,
            machine.copy_bandwidth,
            args.rounds,
            lambda line: print(line, file=sys.stderr, flush=True),
        )
        bandwidth = f'{machine.copy_bandwidth / 1e9:.4g} GB/s in a copy'
        yield f'{machine.name}, {bandwidth}', to_markdown(rows)


def compile_only(
    args: argparse.Namespace, maps: Sequence[Map]
) -> Iterator[tuple[str, str]]:
    """Compile all kernels; the compiler and the table."""
    import triton

    from mmattn.analysis import kernel_resources

    rows = kernel_resources.list_resources(
        args.resources, DTYPES[args.dtype], maps
    )
    yield (
        f'Triton {triton.__version__}, compiled for compute capability '
        f'{args.resources / 10}, not run',
        kernel_resources.to_markdown(rows),
    )


if __name__ == '__main__':
    main()
