"""Compare the speed and memory of models, measured in turns.

    python tools/benchmark.py FIRST [MODEL ...] [options]

Weights are random; nothing is downloaded.
"""

import argparse
import platform
import re
import sys
from functools import partial
from pathlib import Path

import preflight  # noqa: F401

import torch

from mmattn.analysis.benchmark import (
    MODES,
    RUNTIMES,
    TRAINABLE,
    Settings,
    measure,
    to_markdown,
)
from mmattn.analysis.targets import NAMES, OUTPUTS, read_target
from mmattn.cli.usage import UsageError, run_command
from mmattn.export import ONNX_RUNTIMES, check_installed

DTYPES = ('float32', 'bfloat16', 'float16')
DEVICES = ('cpu', 'cuda')


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=f'{__doc__}\n{NAMES}',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    def add(name: str, help: str, **kwargs) -> None:
        if kwargs.get('default') is not None:
            help += f' (default: {kwargs["default"]})'
        parser.add_argument(name, help=help, **kwargs)

    several = dict(nargs='+')
    about = 'models to measure; ratios are to the first one'
    add('models', about, metavar='MODEL', **several)
    about = 'image sizes in pixels: SIDE or HEIGHTxWIDTH (default: 224)'
    add('--sizes', about, type=read_size, metavar='SIZE', **several)
    add('--batch', 'images per step', type=int, default=8)
    about = (
        'inference: forward pass without gradients; training: forward and '
        'backward pass (default: both)'
    )
    add('--modes', about, choices=MODES, **several)
    about = (
        'how to run the models; optimized is mmattn.optimize_for_inference; '
        'only eager and compile can train (default: eager)'
    )
    add('--runtime', about, choices=RUNTIMES, **several)
    optimize = dict(action='store_const', const=['optimized'], dest='runtime')
    add('--optimize', 'same as --runtime optimized', **optimize)
    about = 'last: the last feature map, as in a classifier; all: every stage'
    add('--outputs', about, choices=OUTPUTS, default='last')
    about = 'dtype of images and weights'
    add('--dtype', about, choices=DTYPES, default='float32')
    about = 'keep float32 weights and autocast to --dtype'
    add('--amp', about, action='store_true')
    default = DEVICES[torch.cuda.is_available()]
    add('--device', 'device to run on', choices=DEVICES, default=default)
    about = 'number of CPU threads (default: that of PyTorch)'
    add('--threads', about, type=int)
    add('--rounds', 'timings per model', type=int, default=10)
    about = 'repeat a shorter step until a timing takes this many seconds'
    add('--min-seconds', about, type=float, default=0.2)
    args = parser.parse_args()
    args.sizes = args.sizes or [(224, 224)]
    args.modes = args.modes or list(MODES)
    args.runtime = args.runtime or ['eager']
    return args


def read_size(text: str) -> tuple[int, int]:
    """Read ``224`` or ``800x1344`` as height and width."""
    match = re.fullmatch(r'([1-9]\d*)(?:x([1-9]\d*))?', text)
    if match is None:
        raise argparse.ArgumentTypeError(
            f'expected a size such as 224 or 800x1344, got {text!r}'
        )
    return int(match[1]), int(match[2] or match[1])


def check_args(args: argparse.Namespace) -> None:
    """Report invalid combinations before measuring."""
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise UsageError('--device cuda needs a GPU, but torch sees none')
    for name in ('batch', 'rounds', 'threads'):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UsageError(f'--{name} must be at least 1, got {value}')
    for runtime in set(args.runtime) - set(TRAINABLE):
        if args.modes == ['training']:
            raise UsageError(f'--runtime {runtime} cannot train')
        if (args.device, args.dtype) != ('cpu', 'float32'):
            raise UsageError(
                f'--runtime {runtime} needs --device cpu and --dtype float32'
            )
        if runtime in ONNX_RUNTIMES:
            check_installed(runtime)


def run(args: argparse.Namespace) -> None:
    """Measure and print; exit with status 1 if something could not run."""
    check_args(args)
    targets = [read_target(text, args.outputs) for text in args.models]
    torch.set_num_threads(args.threads or torch.get_num_threads())
    settings = Settings(
        args.batch,
        torch.device(args.device),
        getattr(torch, args.dtype),
        args.amp,
        args.runtime,
        args.rounds,
        args.min_seconds,
    )
    report = partial(print, file=sys.stderr, flush=True)
    rows, left_out = [], []
    for size in args.sizes:
        more = measure(targets, size, args.modes, settings, report)
        rows += more[0]
        left_out += more[1]
    print(
        f'{machine_name(args.device)}, {torch.get_num_threads()} threads, '
        f'torch {torch.__version__}, {args.dtype}, batch {args.batch}\n'
    )
    print(to_markdown(rows))
    print(*left_out, sep='\n', end='')
    sys.exit(bool(left_out))


def machine_name(device: str) -> str:
    """Name of the processor or the GPU."""
    if device == 'cuda':
        return torch.cuda.get_device_name()
    info = Path('/proc/cpuinfo')
    text = info.read_text() if info.is_file() else ''
    found = re.search(r'model name\s*: (.+)', text)
    return found[1] if found else platform.machine()


def main() -> None:
    """Run, and report user errors in one line."""
    args = parse_args()
    try:
        run(args)
    except (ImportError, OSError, ValueError) as error:
        raise UsageError(str(error)) from error


if __name__ == '__main__':
    run_command(main)
