"""Put a published checkpoint into our names.

    python tools/convert_checkpoint.py SOURCE OUT

SOURCE is an official file of a family that is here, a Swin file of mmpretrain,
mmdet or mmseg, or one of our own; a path or an http(s) address. OUT holds
`backbone.*` and, of a classifier, `head.fc.*`, of a Perspective+ U-Net
`decode_head.*`: an ImageClassifier or EncoderDecoder of our configs loads it
whole, and `init_cfg=dict(type='Pretrained', checkpoint=OUT)` of a backbone
takes its part. An ending .safetensors chooses that format.
"""

import argparse

import preflight  # noqa: F401

from mmattn.checkpoints import (
    Converted,
    convert,
    load_file,
    missing_names,
    save_file,
    source_names,
)
from mmattn.checkpoints.naming import (
    count_names,
    list_names,
)
from mmattn.cli.usage import UsageError, run_command


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('source', metavar='SOURCE', help='file to read')
    parser.add_argument('out', metavar='OUT', help='file to write')
    parser.add_argument(
        '--source',
        dest='format',
        default='auto',
        choices=('auto', *source_names()),
        help='format of SOURCE (default: recognised by its names)',
    )
    parser.add_argument(
        '--backbone-only',
        action='store_true',
        help='write the bare backbone, without head and prefix',
    )
    parser.add_argument(
        '--skip-unknown',
        action='store_true',
        help='leave out names that fit nowhere, and take a part of a '
        'backbone, instead of failing',
    )
    parser.add_argument(
        '--force', action='store_true', help='replace OUT if it is there'
    )
    return parser.parse_args()


def report(converted: Converted) -> str:
    """Say in a few lines what was found."""
    head = list_names(
        [f'{name} {tuple(v.shape)}' for name, v in converted.head.items()]
    )
    numbers = sum(value.numel() for value in converted.backbone.values())
    return '\n'.join(
        (
            f'format    {converted.source}',
            f'backbone  mmattn.{converted.family}, arch={converted.arch!r}, '
            f'{len(converted.backbone)} tensors, {numbers:,} values',
            f'head      {head or "none"}',
            f'added     {count_names(converted.added)}',
            f'unused    {count_names(converted.unused)}',
        )
    )


def refuse_part(converted: Converted, path: str) -> None:
    """Refuse a file that holds a part of its backbone only.

    Raises:
        UsageError: If it does; it names what is missing.
    """
    missing = missing_names(converted)
    if missing:
        raise UsageError(
            'converting expects a whole backbone of the format '
            f'{converted.source}, got {path}, which lacks '
            f'{count_names(missing)} (in our names); give the whole file, or '
            'take the part as it is with --skip-unknown'
        )


def main() -> None:
    """Convert a file and tell what went where."""
    args = parse_args()
    try:
        converted = convert(
            load_file(args.source), args.format, strict=not args.skip_unknown
        )
        if not args.skip_unknown:
            refuse_part(converted, args.source)
        print(report(converted))
        state = converted.backbone
        if not args.backbone_only:
            state = converted.whole()
        save_file(state, args.out, force=args.force)
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(str(error)) from error
    print(f'wrote     {args.out}, {len(state)} tensors')


if __name__ == '__main__':
    run_command(main)
