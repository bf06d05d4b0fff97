"""Count parameters and multiply-adds (what papers call FLOPs), by module.

    python tools/get_flops.py CONFIG [--shape H W]
    python tools/get_flops.py --backbone boat-swin-small [--shape H W]

Counted are matrix products, convolutions and fused attention of one forward
pass of one image; of a config, all that leads to a prediction.
"""

import argparse
from collections.abc import Callable
from functools import partial

import preflight  # noqa: F401

import torch
from mmengine.config import DictAction
from mmengine.logging import MMLogger

from mmattn.analysis import Cost, count_config, count_cost
from mmattn.analysis.subjects import read_subject
from mmattn.cli.usage import UsageError, run_command
from mmattn.config import read_config, replace_sync_norms

# As in the tables of the papers.
SHAPES = dict(mmdet=(800, 1280), mmseg=(512, 2048))
SHAPE = (224, 224)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        'config', nargs='?', help='config file of mmdet, mmseg or mmpretrain'
    )
    what.add_argument(
        '--backbone',
        metavar='NAME',
        help='a backbone instead, by a name as benchmark.py takes it: '
        'boat-swin-tiny, \'mmattn.CSWin(arch="large")\', '
        'mmdet::folder/config.py, timm:resnet50',
    )
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help='pixels of the image that the network sees (default: 224 224; '
        'with a config of mmdet 800 1280, of mmseg 512 2048)',
    )
    parser.add_argument(
        '--in-channels',
        type=int,
        default=3,
        help='channels of the image (default: %(default)s)',
    )
    parser.add_argument(
        '--depth',
        type=int,
        default=2,
        help='how deep the table goes into the modules (default: %(default)s)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override fields of the config',
    )
    try:
        args = parser.parse_args()
    except ValueError:  # of mmengine's DictAction
        parser.error('--cfg-options expects KEY=VALUE, one or several')
    if min(*(args.shape or SHAPE), args.in_channels) < 1 or args.depth < 0:
        parser.error(
            '--shape and --in-channels expect numbers from 1 up, --depth from '
            f'0 up, got {args.shape}, {args.in_channels} and {args.depth}'
        )
    return args


def main() -> None:
    """Count and print a table."""
    args = parse_args()
    torch.manual_seed(0)
    shape = args.shape or SHAPE
    if args.config is not None:
        cfg = read_config(
            args.config, args.cfg_options, ('model',), 'counting'
        )
        replace_sync_norms(cfg.model)
        # Else each random start is told.
        MMLogger.get_instance('mmattn', log_level='WARNING')
        shape = args.shape or SHAPES.get(cfg.get('default_scope'), SHAPE)
        count = partial(count_config, cfg)
    else:
        count = find_backbone(args.backbone, args.in_channels)
    try:
        cost = count(tuple(shape), args.in_channels)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f'cannot count {args.config or args.backbone} on '
            f'{args.in_channels} x {shape[0]} x {shape[1]}: {error}'
        ) from error
    print(f'input        {args.in_channels} x {shape[0]} x {shape[1]}')
    print_cost(cost, args.depth)


def find_backbone(
    name: str, in_channels: int
) -> Callable[[tuple[int, int], int], Cost]:
    """Find what counts a backbone by its name; see ``read_subject``.

    Raises:
        UsageError: If there is no such name.
    """
    channels = {} if in_channels == 3 else dict(in_channels=in_channels)
    try:
        subject = read_subject(name, 'all', **channels)
    except (ValueError, FileNotFoundError, ImportError) as error:
        raise UsageError(f'--backbone: {error}') from error

    def count(shape: tuple[int, int], in_channels: int) -> Cost:
        model = subject.build(shape)
        return count_cost(model, torch.rand(1, in_channels, *shape))

    return count


def print_cost(cost: Cost, depth: int) -> None:
    """Print the sums, then a line for each module down to a depth."""
    print(f'parameters   {cost.parameters:,}')
    print(f'FLOPs        {cost.multiply_adds / 1e9:.3f} G (multiply-adds)')
    rows = [
        (name, part)
        for name, part in cost.modules.items()
        if name.count('.') < depth and (part.parameters or part.multiply_adds)
    ]
    if not rows:
        return
    width = max(len(name) for name, _ in rows)
    print(f'\n{"module":<{width}}{"parameters":>14}{"GFLOPs":>10}{"%":>7}')
    for name, part in rows:
        share = part.multiply_adds / max(cost.multiply_adds, 1)
        print(
            f'{name:<{width}}{part.parameters:>14,}'
            f'{part.multiply_adds / 1e9:>10.3f}{100 * share:>7.1f}'
        )


if __name__ == '__main__':
    run_command(main)
