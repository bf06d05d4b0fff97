"""Options that several tools share, named as in mmdet."""

import argparse
import os

from mmengine.config import DictAction


def add_cfg_options(parser: argparse.ArgumentParser, example: str) -> None:
    """Add ``--cfg-options``."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help=f'override fields of the config, such as {example}; write lists '
        "as key='[a,b]' or key=a,b",
    )


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """Add ``--launcher``, and the rank that launchers pass."""
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='launcher that started this process; the dist_*.sh and '
        'slurm_*.sh scripts set it (default: %(default)s)',
    )
    # torch.distributed.launch passes one or the other.
    parser.add_argument(
        '--local_rank',
        '--local-rank',
        type=int,
        default=0,
        help=argparse.SUPPRESS,
    )


def parse_args(
    parser: argparse.ArgumentParser, argv: list[str] | None = None
) -> argparse.Namespace:
    """Parse the command line; a mistake ends it with status 2."""
    try:
        args = parser.parse_args(argv)
        if '' in (getattr(args, 'cfg_options', None) or ()):
            raise ValueError
    except ValueError:  # of mmengine's DictAction
        parser.error('--cfg-options expects KEY=VALUE pairs')
    if 'local_rank' in args:
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args
