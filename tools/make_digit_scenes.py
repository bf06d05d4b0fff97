"""Create digit scenes, a small data set for mmdet, mmseg and mmpretrain.

python tools/make_digit_scenes.py --out data/digit_scenes
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmattn.datasets import DigitSceneSpec, make_digit_folder  # noqa: E402


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    default = DigitSceneSpec()
    parser = argparse.ArgumentParser(
        description='Paste handwritten digits on photographs and write COCO '
        'instances, ADE20K-style semantic maps and ImageNet-style crops. '
        'The same arguments give the same files.'
    )
    parser.add_argument(
        '--out',
        default='data/digit_scenes',
        help='folder to write (default: %(default)s)',
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=default.seed,
        help='random seed (default: %(default)s)',
    )
    parser.add_argument(
        '--train',
        type=int,
        default=default.num_train,
        metavar='N',
        help='number of training scenes (default: %(default)s)',
    )
    parser.add_argument(
        '--val',
        type=int,
        default=default.num_val,
        metavar='N',
        help='number of validation scenes (default: %(default)s)',
    )
    parser.add_argument(
        '--size',
        type=int,
        default=default.size,
        metavar='PIXELS',
        help='side of a scene in pixels; crops have 3/8 of it (default: '
        '%(default)s)',
    )
    parser.add_argument(
        '--force',
        action='store_true',
        help='move other content of the folder to FOLDER.old-N',
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Create the data set and summarize it."""
    args = parse_args(argv)
    start = time.monotonic()
    try:
        spec = DigitSceneSpec(args.seed, args.train, args.val, args.size)
        folder = make_digit_folder(args.out, spec, force=args.force)
    except (ValueError, OSError, ImportError) as error:
        print(f'{Path(__file__).name}: error: {error}', file=sys.stderr)
        sys.exit(2)
    if folder.moved is not None:
        print(f'Moved the previous content to {folder.moved}')
    if not folder.is_new:
        print(f'{folder.root} already contains this data set.')
        return
    crops = len(list((folder.root / 'crops').rglob('*.png')))
    print(
        f'Wrote {folder.root} in {time.monotonic() - start:.1f} s:\n'
        f'  images/       {spec.num_train} training and {spec.num_val} '
        f'validation scenes of {spec.size} x {spec.size} pixels\n'
        '  annotations/  COCO instances (json) and semantic maps (png)\n'
        f'  crops/        {crops} single digits of {spec.crop_size} x '
        f'{spec.crop_size} pixels in class folders'
    )


if __name__ == '__main__':
    main()
