"""Count parameters and multiply-adds (FLOPs in papers), by module.

    python tools/get_flops.py CONFIG [--shape H W]
    python tools/get_flops.py --backbone boat-swin-small [--shape H W]

Counts matrix products, convolutions and fused attention in the forward pass
of one image. With a config, it covers the whole model up to its predictions.
"""

import argparse

import preflight  # noqa: F401

import torch
from mmengine.logging import MMLogger

from mmattn.analysis import Cost, count_config, count_cost
from mmattn.analysis.targets import read_target
from mmattn.cli.arguments import add_cfg_options
from mmattn.cli.arguments import parse_args as parse_options
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
        help='backbone to count instead of a config, named as in '
        'benchmark.py: boat-swin-tiny, mmdet.ResNet(depth=50), timm:resnet50',
    )
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help='height and width of the image in pixels (default: 800 1280 for '
        'a config of mmdet, 512 2048 for one of mmseg, else 224 224)',
    )
    parser.add_argument(
        '--in-channels',
        type=int,
        default=3,
        help='number of image channels (default: %(default)s)',
    )
    parser.add_argument(
        '--depth',
        type=int,
        default=2,
        help='depth of the module tree to print (default: %(default)s)',
    )
    add_cfg_options(parser, 'model.head.num_classes=20')
    args = parse_options(parser)
    if min(*(args.shape or SHAPE), args.in_channels) < 1:
        parser.error(
            '--shape and --in-channels must be at least 1, got '
            f'{args.shape} and {args.in_channels}'
        )
    return args


def main() -> None:
    """Count and print a table."""
    args = parse_args()
    torch.manual_seed(0)
    shape = tuple(args.shape or SHAPE)
    if args.config is not None:
        cfg = read_config(
            args.config, args.cfg_options, ('model',), 'counting'
        )
        replace_sync_norms(cfg.model)
        # mmengine logs the initialization of each parameter.
        MMLogger.get_instance('mmattn', log_level='WARNING')
        if args.shape is None:
            shape = SHAPES.get(cfg.get('default_scope'), SHAPE)
    try:
        if args.config is not None:
            cost = count_config(cfg, shape, args.in_channels)
        else:
            cost = count_backbone(args.backbone, shape, args.in_channels)
    except (ImportError, OSError, TypeError, ValueError) as error:
        raise UsageError(
            f'cannot count {args.config or args.backbone} on '
            f'{args.in_channels} x {shape[0]} x {shape[1]}: {error}'
        ) from error
    print(f'input        {args.in_channels} x {shape[0]} x {shape[1]}')
    print_cost(cost, args.depth)


def count_backbone(
    name: str, shape: tuple[int, int], in_channels: int
) -> Cost:
    """Count a backbone; see ``read_target`` for the names."""
    channels = {} if in_channels == 3 else dict(in_channels=in_channels)
    outputs = 'last' if name.startswith('torchvision:') else 'all'
    model = read_target(name, outputs, **channels).build(shape)
    return count_cost(model, torch.rand(1, in_channels, *shape))


def print_cost(cost: Cost, depth: int) -> None:
    """Print the totals, then a line for each module down to a depth."""
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
