"""Replace the backbone of a config of mmdet, mmseg or mmpretrain.

    python tools/swap_backbone.py SOURCE --backbone boat-swin-tiny --check

SOURCE is a file, or a config that an installed codebase ships, such as
`mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py`. The new config inherits from
it and contains the differences, with comments. Unsupported swaps fail with an
explanation and exit status 2, and write no file.
"""

import argparse
import shlex
from pathlib import Path

import preflight  # noqa: F401

from mmattn.cli.usage import UsageError, run_command
from mmattn.swapping import list_families, swap_backbone


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('source', metavar='SOURCE', help='config to change')
    parser.add_argument(
        '--backbone',
        metavar='NAME',
        default='boat-swin-tiny',
        choices=list(list_families()),
        help=f'new backbone: {", ".join(list_families())} (default: '
        '%(default)s)',
    )
    parser.add_argument(
        '--out',
        metavar='FILE',
        type=Path,
        help='config to write (default: the name of SOURCE with the new '
        'backbone, in the current folder)',
    )
    parser.add_argument(
        '--force',
        action='store_true',
        help='overwrite the config if it exists',
    )
    parser.add_argument(
        '--checkpoint',
        metavar='FILE',
        help='pretrained weights of the new backbone (default: random)',
    )
    parser.add_argument(
        '--keep-optimizer',
        action='store_true',
        help='keep the optimizer and its parameter-wise settings (default: '
        'those of the new backbone)',
    )
    parser.add_argument(
        '--check',
        action='store_true',
        help='build the new model and run a loss and a prediction on '
        'synthetic samples; write the config only if both succeed',
    )
    return parser.parse_args()


def main() -> None:
    """Swap one backbone."""
    args = parse_args()
    if args.out is not None and args.out.suffix != '.py':
        raise UsageError(f'--out must end in .py, got {args.out}')
    try:
        swapped = swap_backbone(**vars(args))
    except OSError as error:
        raise UsageError(str(error)) from error
    if swapped.has_loss is not None:
        loss = 'a loss and ' if swapped.has_loss else ''
        print(f'checked   {loss}a prediction')
    parts = ('.'.join(map(str, edit.path[:2])) for edit in swapped.edits)
    print(f'changed   {", ".join(dict.fromkeys(parts))}')
    print(f'wrote     {swapped.path}')
    for warning in swapped.warnings:
        print(f'warning   {warning}')
    print(
        f'train     python tools/train.py {shlex.quote(str(swapped.path))} '
        f'(that of {swapped.codebase} works once mmattn is installed)'
    )


if __name__ == '__main__':
    run_command(main)
