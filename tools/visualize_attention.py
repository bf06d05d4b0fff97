"""Draw the attention of a model on an image.

    python tools/visualize_attention.py IMAGE CONFIG [--checkpoint FILE]
    python tools/visualize_attention.py IMAGE --backbone boat-swin-nano

Shows, for each attention layer, what the tokens of selected pixels attend to,
the clusters of feature-space attention, and the modulators of SMT. Writes PNG
files and an index.html that displays them.
"""

import argparse
import sys
from pathlib import Path

import preflight  # noqa: F401

import torch
from mmengine.device import get_device
from mmengine.logging import MMLogger
from torch import nn

from mmattn.checkpoints import load_file
from mmattn.cli import single_image
from mmattn.cli.arguments import add_cfg_options
from mmattn.cli.arguments import parse_args as read_args
from mmattn.cli.run_config import check_pretrained
from mmattn.cli.usage import UsageError, run_command
from mmattn.cli.weights import add_options, check_weights
from mmattn.config import build_model, read_config
from mmattn.registry import MODELS
from mmattn.swapping import find_family
from mmattn.visualization import attention


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'image', help='image file of any size, color or grayscale'
    )
    parser.add_argument(
        'config',
        nargs='?',
        help='config file of mmdet, mmseg or mmpretrain; its test pipeline '
        'prepares the image',
    )
    parser.add_argument(
        '--backbone',
        metavar='NAME',
        help='backbone to use instead of a config, such as boat-swin-nano; '
        'the image is normalized with the ImageNet mean and shrunk to at '
        'most 512 pixels',
    )
    parser.add_argument(
        '--checkpoint',
        metavar='FILE',
        help='trained weights (default: those of init_cfg, else random)',
    )
    parser.add_argument(
        '--pixels',
        nargs='+',
        type=read_pixel,
        metavar='ROW,COLUMN',
        help='pixels of IMAGE whose attention to show (default: two on the '
        'diagonal)',
    )
    parser.add_argument(
        '--stages',
        nargs='+',
        type=int,
        metavar='N',
        help='stages to show, -1 for the last (default: all, and layers '
        'outside of stages)',
    )
    parser.add_argument(
        '--blocks',
        nargs='+',
        type=int,
        metavar='N',
        help='blocks of each stage to show, -1 for the last (default: all)',
    )
    parser.add_argument(
        '--max-heads',
        type=int,
        default=4,
        metavar='N',
        help='heads to show per layer, spread evenly (default: %(default)s)',
    )
    parser.add_argument(
        '--out-dir',
        metavar='DIR',
        help='folder to write (default: work_dirs/attention/IMAGE)',
    )
    add_options(parser)
    add_cfg_options(parser, 'model.backbone.init_cfg=None')
    args = read_args(parser)
    if (args.config is None) == (args.backbone is None):
        parser.error('give either a config or --backbone')
    if args.max_heads < 1:
        parser.error(f'--max-heads must be at least 1, got {args.max_heads}')
    return args


def read_pixel(text: str) -> tuple[int, int]:
    """Read ``ROW,COLUMN``."""
    try:
        row, column = map(int, text.split(','))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'expected ROW,COLUMN such as 40,52, got {text!r}'
        ) from None
    return row, column


def main() -> None:
    """Run the model on the image and draw its attention."""
    args = parse_args()
    MMLogger.get_instance('mmattn', log_level='WARNING')
    torch.manual_seed(0)
    try:
        picture = attention.read_picture(args.image)
        weights = args.checkpoint
        if args.config is None:
            model = build_backbone(args)
            image = attention.image_for_backbone(picture)
        else:
            model, image, weights = build_from_config(args)
        layers = attention.select_layers(model, args.stages, args.blocks)
        pixels = image.pixels_at()
        if args.pixels:
            pixels = [image.locate(*pixel) for pixel in args.pixels]
        device = get_device()
        model.to(device)
        with attention.CallRecorder(model, layers) as calls:
            single_image.run_features(model, image.inputs.to(device))
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(str(error)) from error
    out_dir = args.out_dir or f'work_dirs/attention/{Path(args.image).stem}'
    facts = dict(
        image=args.image,
        model=args.config or args.backbone,
        weights=weights or 'random',
    )
    try:
        pictures = attention.write_page(
            out_dir,
            image,
            pixels,
            calls,
            facts,
            max_heads=args.max_heads,
        )
    except OSError as error:
        raise UsageError(
            f'cannot write to --out-dir {out_dir}: {error}'
        ) from error
    if weights is None:
        print(
            'warning: random weights, the pictures show an untrained model; '
            'give trained weights with --checkpoint',
            file=sys.stderr,
        )
    for path in pictures:
        print(path)
    print(f'{len(pictures)} pictures; open {Path(out_dir, "index.html")}')


def build_backbone(args: argparse.Namespace) -> nn.Module:
    """Build a backbone by name, such as ``boat-swin-nano``.

    Raises:
        UsageError: If it does not exist.
    """
    family = find_family(args.backbone)
    pretrained = dict(
        type='Pretrained',
        checkpoint=args.checkpoint,
        strict=not args.partial,
        min_loaded=0.0 if args.partial else 0.95,
        allow_nonfinite=args.allow_nonfinite,
    )
    model = MODELS.get(family.type)(
        arch=family.arch, init_cfg=pretrained if args.checkpoint else None
    )
    model.init_weights()
    return model.eval()


def build_from_config(
    args: argparse.Namespace,
) -> tuple[nn.Module, attention.NetworkImage, str | None]:
    """Build the model of a config and prepare the image for it.

    Returns:
        The model, the image and the source of the weights, None if random.
    """
    cfg = read_config(
        args.config,
        args.cfg_options,
        ('model', 'test_dataloader'),
        'visualization',
    )
    model = build_model(cfg)
    weights = args.checkpoint
    if weights is None:
        weights = ', '.join(check_pretrained(cfg)) or None
        model.init_weights()
    else:
        state = load_file(args.checkpoint, args.allow_nonfinite)
        check_weights(
            model,
            state,
            args.checkpoint,
            whole=False,
            partial=args.partial,
            allow_nonfinite=args.allow_nonfinite,
        )
    pipeline = single_image.build_pipeline(cfg)
    image = attention.image_for_model(model, pipeline, args.image)
    return model, image, weights


if __name__ == '__main__':
    run_command(main)
