"""Measure what a small Swin block costs beside one written by hand.

    python tools/dev/measure_overhead.py [--rounds 50]

Needs the package installed, or `PYTHONPATH=.`.

A block of swin-tiny's first stage (96 channels, 3 heads) runs on one map of
7 x 7 tokens, and a shifted one on 14 x 14, in bfloat16 on one thread of the
CPU: there is little to compute, so Python and the dispatch of operations
dominate, as they do for small models on a fast GPU. Beside it runs a block of
plain torch with the same weights. Both take turns; the figures are medians of
CPU time, which other programs disturb less than the clock on the wall.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mmattn
from mmattn.analysis.timing import quartiles, time_in_turns
from mmattn.backbones import AttentionPyramid

EMBED_DIMS, NUM_HEADS, WINDOW = 96, 3, 7
CASES = {7: 0, 14: 3}  # side of the map: shift


class HandWrittenBlock(nn.Module):
    """A Swin block as an engineer writes it for maps of one size.

    Args:
        side: Rows and columns of the map, a multiple of the window.
        shift: Rows and columns that the windows are shifted by.
    """

    def __init__(self, side: int, shift: int) -> None:
        super().__init__()
        C, M = EMBED_DIMS, WINDOW
        self.shift = shift
        self.norm1 = nn.LayerNorm(C)
        self.qkv = nn.Linear(C, 3 * C)
        self.proj = nn.Linear(C, C)
        self.norm2 = nn.LayerNorm(C)
        self.mlp = nn.Sequential(
            nn.Linear(C, 4 * C), nn.GELU(), nn.Linear(4 * C, C)
        )
        self.table = nn.Parameter(torch.zeros((2 * M - 1) ** 2, NUM_HEADS))
        place = torch.cartesian_prod(torch.arange(M), torch.arange(M))
        offset = place[:, None] - place[None] + M - 1  # (L, L, 2), L = M * M
        index = (2 * M - 1) * offset[..., 0] + offset[..., 1]
        self.register_buffer('index', index.flatten())
        self.register_buffer('mask', shift_mask(side, shift))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, C)`` to ``(B, H, W, C)``."""
        B, H, W, C = x.shape
        M, L = WINDOW, WINDOW**2
        windows = self.norm1(x)
        if self.shift:
            windows = windows.roll((-self.shift, -self.shift), (1, 2))
        windows = windows.view(B, H // M, M, W // M, M, C)
        windows = windows.transpose(2, 3).reshape(-1, L, C)
        qkv = self.qkv(windows).view(-1, L, 3, NUM_HEADS, C // NUM_HEADS)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).contiguous()  # each (B*, h, L, d)
        bias = self.table[self.index].view(L, L, NUM_HEADS).permute(2, 0, 1)
        if self.shift:
            bias = bias + self.mask  # (windows, h, L, L)
            bias = bias.repeat(B, 1, 1, 1) if B > 1 else bias
        else:
            bias = bias[None]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        out = self.proj(out.transpose(1, 2).reshape(-1, L, C))
        out = out.view(B, H // M, W // M, M, M, C)
        out = out.transpose(2, 3).reshape(B, H, W, C)
        if self.shift:
            out = out.roll((self.shift, self.shift), (1, 2))
        x = x + out
        return x + self.mlp(self.norm2(x))


def shift_mask(side: int, shift: int) -> Tensor:
    """Minus infinity between tokens that the shift brings together.

    Returns:
        ``(windows, 1, L, L)``.
    """
    M = WINDOW
    part = torch.zeros(side, dtype=torch.long)
    part[side - M :], part[side - shift :] = 1, 2
    region = 3 * part[:, None] + part[None]  # (H, W)
    region = region.view(side // M, M, side // M, M).transpose(1, 2)
    region = region.reshape(-1, M * M)
    differs = region[:, None, :] != region[:, :, None]
    mask = torch.zeros(differs.shape).masked_fill(differs, -torch.inf)
    return mask[:, None]


def build(side: int) -> tuple[nn.Module, HandWrittenBlock]:
    """Our block for a map of this side, and the other with its weights."""
    pyramid = AttentionPyramid('swin-tiny', drop_path_rate=0.0)
    ours = pyramid.stages[0].blocks[1 if CASES[side] else 0]
    theirs = HandWrittenBlock(side, CASES[side])
    names = {'mlp.0': 'mlp.fc1', 'mlp.2': 'mlp.fc2', 'qkv': 'attn.qkv'}
    names |= {
        'proj': 'attn.proj',
        'table': 'attn.relative_position_bias_table',
    }
    weights = ours.state_dict()
    for name, parameter in theirs.named_parameters():
        module, dot, field = name.rpartition('.')
        key = f'{names.get(module, module)}.{field}' if dot else names[name]
        parameter.data.copy_(weights[key])
    return ours, theirs


def count_python_calls(call: Callable[[], Any]) -> Counter[str]:
    """Calls of Python functions of mmattn and of torch, by package."""
    counts: Counter[str] = Counter()
    folders = {
        str(Path(mmattn.__file__).parent): 'mmattn',
        str(Path(torch.__file__).parent): 'torch',
    }

    def trace(frame: FrameType, event: str, argument: Any) -> None:
        if event == 'call':
            for folder, package in folders.items():
                if frame.f_code.co_filename.startswith(folder):
                    counts[package] += 1

    sys.setprofile(trace)
    try:
        call()
    finally:
        sys.setprofile(None)
    return counts


def measure(side: int, rounds: int, min_seconds: float) -> list[str]:
    """The lines of the table for a map of this side."""
    blocks = dict(zip(('mmattn', 'by hand'), build(side)))
    x = torch.rand(1, side, side, EMBED_DIMS, dtype=torch.bfloat16)
    calls = {}
    for name, block in blocks.items():
        block.to(torch.bfloat16)

        def infer(block: nn.Module = block) -> None:
            with torch.no_grad():
                block(x)

        def train(block: nn.Module = block) -> None:
            block(x).sum().backward()

        calls[name, 'inference'], calls[name, 'training'] = infer, train
    timings = time_in_turns(
        calls, rounds, min_seconds, clock=time.process_time
    )
    where = f'{side} x {side}' + (', shifted' if CASES[side] else '')
    lines = []
    for mode in ('inference', 'training'):
        ours, theirs = (timings[name, mode] for name in blocks)
        _, ratio, _ = quartiles([x / y for x, y in zip(ours, theirs)])
        micro = [1e6 * quartiles(seconds)[1] for seconds in (ours, theirs)]
        python = [count_python_calls(calls[name, mode]) for name in blocks]
        lines.append(
            f'| {where} | {mode} | {micro[0]:.0f} | {micro[1]:.0f} | '
            f'{ratio:.2f} | {python[0]["mmattn"]} + {python[0]["torch"]} | '
            f'{python[1]["torch"]} |'
        )
    return lines


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--rounds', type=int, default=50)
    parser.add_argument('--min-seconds', type=float, default=0.02)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f'torch {torch.__version__}, bfloat16, 1 thread\n\n'
        '| map | mode | mmattn us | by hand us | ratio | Python calls: mmattn '
        '+ torch | by hand |\n|---|---|---|---|---|---|---|'
    )
    for side in CASES:
        print('\n'.join(measure(side, args.rounds, args.min_seconds)))


if __name__ == '__main__':
    main()
