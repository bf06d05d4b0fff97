"""Print what the tiny archs cost, beside the papers' figures.

    python tools/dev/compare_archs.py

Needs the package installed, or `PYTHONPATH=.`. Prints the table of
docs/model_costs.md: parameters and multiply-adds (what papers call FLOPs) of
one image of 224 x 224 pixels, with a head of 1000 classes where the paper has
one. Only shapes are computed, so this takes seconds on any machine.
"""

import argparse
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mmattn.analysis import count_cost
from mmattn.registry import MODELS

SIZE = 224
NUM_CLASSES = 1000


class Row(NamedTuple):
    """An arch and its published figures; '-' where there are none."""

    backbone: str
    arch: str
    reported: str = '-'
    published_code: str = '-'
    with_head: bool = True


# reported: tables of the papers' repositories. published_code: that code,
# counted with torch.utils.flop_counter.
ROWS = (
    Row('BOATSwin', 'tiny', '-', '30.27 M, 5.20 G'),
    Row('BOATCSWin', 'tiny', '-', '26.39 M, 5.20 G'),
    Row('CSWin', 'tiny', '23 M, 4.3 G', '22.32 M, 4.32 G'),
    Row('SMT', 'tiny', '12 M, 2.4 G', '11.51 M, 2.46 G'),
    Row('AttentionPyramid', 'swin-tiny', '28 M, 4.5 G', '28.29 M, 4.49 G'),
    Row('AttentionPyramid', 'sliding-window-tiny'),
    Row('AttentionPyramid', 'key-value-tiny'),
    Row('AttentionPyramid', 'enltb-tiny'),
    Row('PerspectiveEncoder', 'base', with_head=False),
)


class Classifier(nn.Module):
    """The last map of a backbone, its mean, a linear layer."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.out_channels[-1], NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, 3, H, W)`` to ``(B, NUM_CLASSES)``."""
        return self.head(self.backbone(x)[-1].mean(dim=(2, 3)))


def build(row: Row) -> nn.Module:
    """Build the model of a row."""
    cls = MODELS.get(f'mmattn.{row.backbone}')
    if not row.with_head:
        return cls(row.arch)
    return Classifier(cls(row.arch, out_indices=(3,)))


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    print(
        '| backbone | arch | parameters | FLOPs | reported by the paper | '
        'published code |\n|---|---|---|---|---|---|'
    )
    with FakeTensorMode():  # shapes only
        for row in ROWS:
            cost = count_cost(build(row), torch.rand(1, 3, SIZE, SIZE))
            print(
                f'| {row.backbone} | {row.arch} | {cost.parameters:,} | '
                f'{cost.multiply_adds / 1e9:.3f} G | {row.reported} | '
                f'{row.published_code} |'
            )


if __name__ == '__main__':
    main()
