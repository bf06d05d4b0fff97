"""Draw what the attention of a model does with a picture.

    python tools/visualize_attention.py IMAGE CONFIG [--checkpoint FILE]
    python tools/visualize_attention.py IMAGE --backbone boat-swin-nano

Of each attention layer: what the tokens of chosen pixels attend to, which
tokens clusters bring together, level by level, and the modulators of SMT.
Writes PNG files and index.html, which shows them all.
"""

import argparse
import sys
from pathlib import Path

import preflight  # noqa: F401

import torch
from mmengine.config import DictAction
from mmengine.device import get_device
from mmengine.logging import MMLogger
from torch import nn

from mmattn.checkpoints import load_file
from mmattn.cli import single_image
from mmattn.cli.run_config import check_pretrained
from mmattn.cli.usage import UsageError, run_command
from mmattn.config import read_config
from mmattn.registry import MODELS
from mmattn.swapping import find_family
from mmattn.visualization import attention


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('image', help='picture of any size, colour or grey')
    parser.add_argument(
        'config',
        nargs='?',
        help='config file of mmdet, mmseg or mmpretrain, whose test pipeline '
        'prepares the picture',
    )
    parser.add_argument(
        '--backbone',
        metavar='NAME',
        help='a backbone instead of a config, such as boat-swin-nano; the '
        'picture is normalised as those of ImageNet, and shrunk to at most '
        '512 pixels',
    )
    parser.add_argument(
        '--checkpoint',
        metavar='FILE',
        help='trained weights (default: those that the config names, else '
        'random ones)',
    )
    parser.add_argument(
        '--pixels',
        nargs='+',
        type=read_pixel,
        metavar='ROW,COLUMN',
        help='pixels of IMAGE whose attention is shown (default: two on the '
        'diagonal)',
    )
    parser.add_argument(
        '--stages',
        nargs='+',
        type=int,
        metavar='N',
        help='stages to show, from 0, -1 the last (default: all, and layers '
        'outside of stages)',
    )
    parser.add_argument(
        '--blocks',
        nargs='+',
        type=int,
        metavar='N',
        help='blocks of each stage to show, likewise (default: all)',
    )
    parser.add_argument(
        '--max-heads',
        type=int,
        default=4,
        metavar='N',
        help='heads of a layer to show, spread evenly (default: %(default)s)',
    )
    parser.add_argument(
        '--out-dir',
        metavar='DIR',
        help='folder of the pictures (default: work_dirs/attention/IMAGE)',
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
    if (args.config is None) == (args.backbone is None):
        parser.error('expects a config or --backbone, one of them')
    if args.max_heads < 1:
        parser.error(f'--max-heads expects at least 1, got {args.max_heads}')
    return args


def read_pixel(text: str) -> tuple[int, int]:
    """Read ``ROW,COLUMN``."""
    try:
        row, column = map(int, text.split(','))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'expects ROW,COLUMN such as 40,52, got {text!r}'
        ) from None
    return row, column


def main() -> None:
    """Run the picture through the model and draw."""
    args = parse_args()
    MMLogger.get_instance('mmattn', log_level='WARNING')
    torch.manual_seed(0)
    try:
        picture = attention.read_picture(args.image)
        weights = args.checkpoint
        if args.config is None:
            model = build_backbone(args.backbone, args.checkpoint)
            image = attention.image_for_backbone(picture)
        else:
            model, image, weights = build_from_config(args)
        layers = attention.select_layers(model, args.stages, args.blocks)
        pixels = image.default_pixels()
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
            layers,
            calls,
            facts,
            max_heads=args.max_heads,
        )
    except OSError as error:
        raise UsageError(
            f'--out-dir expects a folder to write to, got {out_dir}: {error}'
        ) from error
    if weights is None:
        print(
            'random weights: the pictures show an untrained model; give '
            'trained ones by --checkpoint',
            file=sys.stderr,
        )
    for path in pictures:
        print(path)
    print(f'{len(pictures)} pictures; open {Path(out_dir, "index.html")}')


def build_backbone(name: str, checkpoint: str | None) -> nn.Module:
    """Build a backbone by its name, such as ``boat-swin-nano``.

    Raises:
        UsageError: If there is no such backbone.
    """
    family = find_family(name)
    pretrained = dict(type='Pretrained', checkpoint=checkpoint)
    model = MODELS.get(family.type)(
        arch=family.arch, init_cfg=pretrained if checkpoint else None
    )
    model.init_weights()
    return model.eval()


def build_from_config(
    args: argparse.Namespace,
) -> tuple[nn.Module, attention.NetworkImage, str | None]:
    """Build the model of a config, and prepare the picture for it.

    Returns:
        The model, the picture, and where the weights are from: None where
        they are random.
    """
    cfg = read_config(
        args.config,
        args.cfg_options,
        ('model', 'test_dataloader'),
        'drawing attention',
    )
    model = single_image.build_model(cfg)
    weights = args.checkpoint
    if weights is None:
        weights = ', '.join(check_pretrained(cfg)) or None
        model.init_weights()
    else:
        state = load_file(args.checkpoint)
        single_image.load_weights(model, state, args.checkpoint)
    pipeline = single_image.build_pipeline(cfg)
    image = attention.image_for_model(model, pipeline, args.image)
    return model, image, weights


if __name__ == '__main__':
    run_command(main)
