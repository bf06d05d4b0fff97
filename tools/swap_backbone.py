"""Replace the backbone of a config of mmdet, mmseg or mmpretrain.

    python tools/swap_backbone.py SOURCE --backbone boat-swin-tiny --check
    python tools/swap_backbone.py --coverage mmdet --backbone smt-tiny

SOURCE is a file, or a config that an installed codebase ships, such as
`mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py`. The new config inherits from
it and holds what differs, with the reasons. What makes no sense is refused:
exit status 2, the reason, and no file.
"""

import argparse
from pathlib import Path

import preflight  # noqa: F401

from mmattn.cli.usage import UsageError, run_command
from mmattn.stack import CODEBASES
from mmattn.swapping import (
    Coverage,
    list_families,
    swap_backbone,
)

# Options that mean nothing in the other mode.
SWAP_ONLY = ('checkpoint', 'keep_optimizer', 'check', 'force')
COVERAGE_ONLY = ('journal', 'sample', 'seed', 'retry', 'timeout', 'jobs')


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'source', metavar='SOURCE', nargs='?', help='config to start from'
    )
    parser.add_argument(
        '--backbone',
        metavar='NAME',
        default='boat-swin-tiny',
        choices=list(list_families()),
        help=f'one of {", ".join(list_families())} (default: %(default)s)',
    )
    parser.add_argument(
        '--out',
        metavar='FILE',
        type=Path,
        help='new config (default: the name of SOURCE with the new backbone, '
        'here); with --coverage the page (default: docs/swap_coverage.md)',
    )
    parser.add_argument(
        '--force', action='store_true', help='replace --out if it is there'
    )
    parser.add_argument(
        '--checkpoint',
        metavar='FILE',
        help='pretrained weights of the new backbone',
    )
    parser.add_argument(
        '--keep-optimizer',
        action='store_true',
        help='leave the optimizer and its decay rules as they are',
    )
    parser.add_argument(
        '--check',
        action='store_true',
        help='build the new model, run a loss and a prediction on synthetic '
        'samples, and write only what passes',
    )
    parser.add_argument(
        '--coverage',
        metavar='HOST',
        choices=CODEBASES,
        help='swap and check all configs that a codebase ships, and write a '
        'page of results; goes on where it was stopped',
    )
    parser.add_argument(
        '--journal',
        metavar='FILE',
        type=Path,
        default=Path('work_dirs/swap_coverage.jsonl'),
        help='what --coverage has found so far (default: %(default)s)',
    )
    parser.add_argument(
        '--sample', metavar='N', type=int, help='--coverage of N configs only'
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='of --sample (default: 0)'
    )
    parser.add_argument(
        '--retry',
        metavar='STATUS',
        choices=('failed', 'refused', 'changed'),
        help='--coverage: try those again that ended so, or that another '
        'state of this tool tried',
    )
    parser.add_argument(
        '--timeout',
        metavar='SECONDS',
        type=float,
        default=300.0,
        help='--coverage: for each config (default: %(default)g)',
    )
    parser.add_argument(
        '--jobs',
        metavar='N',
        type=int,
        default=1,
        help='--coverage: configs at a time (default: %(default)s)',
    )
    args = parser.parse_args()
    if (args.source is None) == (args.coverage is None):
        parser.error('expects SOURCE or --coverage HOST, one of the two')
    idle = SWAP_ONLY if args.coverage is not None else COVERAGE_ONLY
    given = [
        f'--{name.replace("_", "-")}'
        for name in idle
        if getattr(args, name) != parser.get_default(name)
    ]
    if given:
        mode = '--coverage' if args.coverage is not None else 'SOURCE'
        parser.error(f'{mode} takes no {", ".join(given)}')
    sample = 1 if args.sample is None else args.sample
    if min(args.jobs, sample) < 1 or args.timeout <= 0:
        parser.error(
            '--jobs and --sample expect numbers from 1 up, --timeout seconds '
            f'above 0, got {args.jobs}, {args.sample} and {args.timeout:g}'
        )
    return args


def main() -> None:
    """Swap one backbone, or try all of a codebase."""
    args = parse_args()
    if args.coverage is not None:
        coverage = Coverage(args.coverage, args.backbone, args.journal)
        coverage.run(
            args.sample, args.seed, args.retry, args.timeout, args.jobs
        )
        print(coverage.write_page(args.out or Path('docs/swap_coverage.md')))
        return
    try:
        swapped = swap_backbone(
            args.source,
            args.backbone,
            out=args.out,
            checkpoint=args.checkpoint,
            keep_optimizer=args.keep_optimizer,
            check=args.check,
            force=args.force,
        )
    except OSError as error:
        raise UsageError(str(error)) from error
    print(swapped)


if __name__ == '__main__':
    run_command(main)
