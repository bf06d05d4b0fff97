"""Measure ENLTB beside a softmax-attention block of the same width.

    python tools/dev/compare_blocks.py [--sides 28 56 112] [--embed-dims 96]

Needs the package installed, or `PYTHONPATH=.`. Both blocks are norm,
attention, residual, norm, MLP, residual, on one float32 map; one attends
through random features, the other through PyTorch's fused softmax attention
and an output projection. Printed are the seconds of a forward and a backward
pass, the best of the repeats, in which the blocks take turns, and the saved
activations of the forward pass, weights included.
"""

import argparse
from functools import partial

import torch
from torch import nn

from mmattn.analysis.memory import saved_activations
from mmattn.analysis.timing import time_in_turns
from mmattn.attentions import (
    EfficientNonLocalAttention,
    KeyValueAttention,
)
from mmattn.layers import AttentionBlock

_HEAD_DIMS = 32


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--sides',
        type=int,
        nargs='+',
        default=[28, 56, 112],
        help='sides of square maps, in tokens (default: 28 56 112)',
    )
    parser.add_argument(
        '--embed-dims',
        type=int,
        default=96,
        help=f'channels, a multiple of {_HEAD_DIMS} (default: 96)',
    )
    parser.add_argument(
        '--repeats',
        type=int,
        default=3,
        help='timings, of which the best counts (default: 3)',
    )
    return parser.parse_args()


def build_blocks(embed_dims: int) -> dict[str, nn.Module]:
    """The blocks to compare, by name."""
    num_heads = embed_dims // _HEAD_DIMS
    attentions = {
        'ENLTB': EfficientNonLocalAttention(embed_dims),
        f'softmax, {num_heads} heads': KeyValueAttention(
            embed_dims, num_heads
        ),
    }
    return {
        name: AttentionBlock(attention, embed_dims)
        for name, attention in attentions.items()
    }


def measure(
    blocks: dict[str, nn.Module], x: torch.Tensor, repeats: int
) -> dict[str, tuple[float, int]]:
    """Best seconds of both passes, and bytes of saved activations."""

    def step(block: nn.Module) -> None:
        block(x).sum().backward()

    steps = {name: partial(step, block) for name, block in blocks.items()}
    timings = time_in_turns(steps, repeats)
    return {
        name: (min(timings[name]), saved_activations(partial(block, x)))
        for name, block in blocks.items()
    }


def main() -> None:
    """Print one line for each block and size."""
    args = parse_args()
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    print(f'torch {torch.__version__}, {device}, {args.embed_dims} channels')
    print(
        f'{"tokens":>10}  {"block":<18}{"seconds":>9}{"MB saved":>9}'
        f'{"parameters":>12}'
    )
    for side in args.sides:
        x = torch.randn(1, side, side, args.embed_dims, device=device)
        blocks = {
            name: block.to(device)
            for name, block in build_blocks(args.embed_dims).items()
        }
        measured = measure(blocks, x, args.repeats)
        for name, block in blocks.items():
            seconds, saved = measured[name]
            numbers = sum(p.numel() for p in block.parameters())
            print(
                f'{f"{side} x {side}":>10}  {name:<18}{seconds:>9.4f}'
                f'{saved / 1e6:>9.1f}{numbers:>12,}',
                flush=True,
            )


if __name__ == '__main__':
    main()
