"""Check the data sets of a config before training.

    python tools/check_dataset.py CONFIG

Reads every image and annotation, reports each fault with its file, and counts
the images, instances and pixels of each class. The exit status is 1 if there
are errors.
"""

import argparse
import sys

import preflight  # noqa: F401

from mmattn.cli.arguments import add_cfg_options, parse_args
from mmattn.cli.data import check_data
from mmattn.cli.launch import count_cores
from mmattn.cli.usage import run_command
from mmattn.config import read_config

SPLITS = ('train', 'val', 'test')


def make_parser() -> argparse.ArgumentParser:
    """The options of this tool."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='config file or model name')
    parser.add_argument(
        '--splits',
        nargs='+',
        choices=SPLITS,
        help='data loaders to check (default: all; test only if it differs '
        'from val)',
    )
    add_cfg_options(parser, 'train_dataloader.dataset.data_root=DIR')
    return parser


def main() -> None:
    """Check the data sets of the config."""
    args = parse_args(make_parser())
    needs = [f'{split}_dataloader' for split in args.splits or ('train',)]
    cfg = read_config(args.config, args.cfg_options, needs, 'checking data')
    loaders = {x: cfg.get(f'{x}_dataloader') for x in args.splits or SPLITS}
    if loaders.get('test') == loaders.get('val'):
        loaders.pop('test', None)
    splits = [split for split, loader in loaders.items() if loader]
    sys.exit(check_data(cfg, splits, count_cores()) > 0)


if __name__ == '__main__':
    run_command(main)
