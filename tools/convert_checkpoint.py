"""Convert a published checkpoint to mmattn's parameter names.

    python tools/convert_checkpoint.py SOURCE OUT

SOURCE is the path or http(s) URL of an official checkpoint, of a Swin
checkpoint of timm, torchvision, mmpretrain, mmdet or mmseg, or of an mmattn
checkpoint. OUT contains `backbone.*` and the head: `head.fc.*` of a
classifier, `decode_head.*` of a Perspective+ U-Net. The models of mmattn
configs load all of it; a backbone loads its part with
`init_cfg=dict(type='Pretrained', checkpoint=OUT)`.
"""

import argparse

import preflight  # noqa: F401

from mmattn.checkpoints import (
    Converted,
    UnknownFormat,
    UnknownKeys,
    convert,
    load_file,
    missing_names,
    save_file,
    source_names,
)
from mmattn.checkpoints.naming import count_names, list_names
from mmattn.cli.usage import UsageError, run_command


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'source', metavar='SOURCE', help='checkpoint to convert'
    )
    parser.add_argument(
        'out', metavar='OUT', help='file to write: .pth, .pt or .safetensors'
    )
    parser.add_argument(
        '--source',
        dest='format',
        default='auto',
        choices=('auto', *source_names()),
        help='format of SOURCE (default: auto, detected from its keys)',
    )
    parser.add_argument(
        '--prefix',
        help='prefix of the names in SOURCE, such as `teacher`',
    )
    parser.add_argument(
        '--backbone-only',
        action='store_true',
        help='write only the backbone, without the prefix `backbone`',
    )
    parser.add_argument(
        '--skip-unknown',
        action='store_true',
        help='drop unknown keys and accept an incomplete backbone (default: '
        'fail)',
    )
    parser.add_argument(
        '--force', action='store_true', help='overwrite OUT if it exists'
    )
    return parser.parse_args()


def report(converted: Converted) -> str:
    """Summarize the converted checkpoint."""
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


def check_complete(converted: Converted, path: str) -> None:
    """Check that the checkpoint holds a whole backbone.

    Raises:
        UsageError: If tensors are missing.
    """
    missing = missing_names(converted)
    if missing:
        raise UsageError(
            f'{path} (format {converted.source}) is incomplete: missing '
            f'{count_names(missing)} (converted names); give the complete '
            'checkpoint, or accept this one with --skip-unknown'
        )


def main() -> None:
    """Convert a checkpoint and summarize it."""
    args = parse_args()
    if not args.out.endswith(('.pth', '.pt', '.safetensors')):
        raise UsageError(f'OUT must be .pth, .pt or .safetensors: {args.out}')
    try:
        converted = convert(
            load_file(args.source),
            args.format,
            strict=not args.skip_unknown,
            prefix=args.prefix,
        )
        if not args.skip_unknown:
            check_complete(converted, args.source)
        print(report(converted))
        state = converted.backbone
        if not args.backbone_only:
            state = converted.whole()
        save_file(state, args.out, force=args.force)
    except UnknownKeys as error:
        raise UsageError(
            f'{error.problem}; ignore them with --skip-unknown'
        ) from error
    except UnknownFormat as error:
        options = [f'--prefix {prefix}' for prefix in error.prefixes]
        advice = f'; try {" or ".join(options)}' if options else ''
        raise UsageError(f'{error.problem}{advice}') from error
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(str(error)) from error
    print(f'wrote     {args.out}, {len(state)} tensors')


if __name__ == '__main__':
    run_command(main)
