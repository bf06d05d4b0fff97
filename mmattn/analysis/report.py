"""Measurements as JSON, CSV and Markdown."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

from .comparison import Row
from .machine import Machine
from .timing import Spread

_HEADER = (
    'model',
    'size',
    'mode',
    'ms (quartiles)',
    'ratio (quartiles)',
    'ratio of CPU time',
    'images/s',
    'M parameters',
    'G multiply-adds',
    'of matmul rate',
    'floor ms: products, moves',
    'MB kept/image',
    'GB peak',
)
_GROWTH_HEADER = (
    'model',
    'mode',
    'size',
    'ns/token',
    'growth',
    'bytes kept/token',
    'growth',
)


def to_json(rows: Sequence[Row], **more: Any) -> str:
    """All that was measured; spreads as median, low and high."""
    named = [
        {
            field: value._asdict() if isinstance(value, Spread) else value
            for field, value in _items(row)
        }
        for row in rows
    ]
    return json.dumps(more | dict(rows=named), indent=2) + '\n'


def to_csv(rows: Sequence[Row]) -> str:
    """One line for each row, without the single rounds."""
    table = []
    for row in rows:
        flat = {}
        for field, value in _items(row):
            if isinstance(value, Spread):
                names = (f'{field}_{name}' for name in value._fields)
                flat |= zip(names, value)
            elif field != 'rounds':
                flat[field] = value
        table.append(flat)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()


def _items(row: Row) -> Iterator[tuple[str, Any]]:
    return ((field, getattr(row, field)) for field in row.__annotations__)


def to_markdown(rows: Sequence[Row], batch: int, machine: Machine) -> str:
    """A table for people."""
    return _table(_HEADER, [_to_cells(row, batch, machine) for row in rows])


def _to_cells(row: Row, batch: int, machine: Machine) -> list[str]:
    median, low, high = (1e3 * seconds for seconds in row.seconds)
    products = row.flops / machine.matmul_rate
    moves = row.moved_bytes * batch / machine.copy_bandwidth
    return [
        row.model,
        f'{row.height} x {row.width}',
        row.mode,
        f'{median:.4g} ({low:.4g}-{high:.4g})',
        '{:.3f} ({:.3f}-{:.3f})'.format(*row.ratio),
        f'{row.cpu_ratio.median:.3f}',
        f'{batch / row.seconds.median:.4g}',
        f'{row.parameters / 1e6:.2f}',
        f'{row.multiply_adds / 1e9:.2f}',
        f'{products / row.seconds.median:.0%}',
        f'{products * 1e3:.4g}, {moves * 1e3:.4g}',
        '' if row.kept_bytes is None else f'{row.kept_bytes / 1e6:.1f}',
        '' if row.peak_bytes is None else f'{row.peak_bytes / 1e9:.2f}',
    ]


def growth_to_markdown(rows: Sequence[Row], batch: int) -> str:
    """Time and memory of one token, and how they grow with the image.

    A growth of 1 is a cost in proportion to the tokens. What it is compared
    with is the first size of the same model and mode.
    """
    first: dict[tuple[str, str], Row] = {}
    lines = []
    for row in rows:
        origin = first.setdefault((row.model, row.mode), row)
        time, start = (
            r.seconds.median / (batch * r.tokens) for r in (row, origin)
        )
        kept, kept_start = (
            (r.kept_bytes or 0) / r.tokens for r in (row, origin)
        )
        lines.append(
            [
                row.model,
                row.mode,
                f'{row.height} x {row.width}',
                f'{time * 1e9:.4g}',
                f'{time / start:.2f}',
                f'{kept:.4g}' if kept else '',
                f'{kept / kept_start:.2f}' if kept else '',
            ]
        )
    lines.sort(key=lambda line: (line[0], line[1]))  # sizes stay in order
    return _table(_GROWTH_HEADER, lines)


def operations_to_markdown(operations: Sequence[dict]) -> str:
    """The operations that take most, model by model."""
    header = ('model', 'size', 'mode', 'operation', 'calls', 'ms', 'share')
    return _table(
        header,
        [
            [
                row['model'],
                f'{row["height"]} x {row["width"]}',
                row['mode'],
                f'`{row["name"]}`',
                str(row['calls']),
                f'{row["seconds"] * 1e3:.4g}',
                f'{row["share"]:.0%}',
            ]
            for row in operations
        ],
    )


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ['---'] * len(header)
    return ''.join(
        f'| {" | ".join(cells)} |\n' for cells in (header, rule, *lines)
    )
