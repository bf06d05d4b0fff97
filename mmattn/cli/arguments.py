"""Arguments that several tools take, with the names that mmdet uses."""

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
        help=f'override fields of the config, e.g. {example}; lists as '
        "key='[a,b]' or key=a,b",
    )


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """Add ``--launcher``, and the rank that launchers hand over."""
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='who starts the processes (default: %(default)s)',
    )
    # torch.distributed.launch hands its processes one or the other.
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
        parser.error('--cfg-options expects KEY=VALUE, one or several')
    if 'local_rank' in args:
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args
