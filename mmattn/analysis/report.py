"""Measurements as JSON, CSV and Markdown."""

import csv
import io
from collections.abc import Sequence
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
_OPERATIONS_HEADER = (
    'model',
    'size',
    'mode',
    'operation',
    'calls',
    'ms',
    'share',
)


_FLOOR_HEADER = (
    'model',
    'size',
    'mode',
    'ms of products alone',
    'of the time',
    'ratio to the time of the first',
)


def to_records(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """All that was measured, as JSON has it; spreads by name."""
    return [_to_plain(row) for row in rows]


def _to_plain(value: Any) -> Any:
    if isinstance(value, Row):
        value = vars(value)
    elif isinstance(value, tuple) and hasattr(value, '_asdict'):
        value = value._asdict()
    if isinstance(value, dict):
        return {key: _to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_plain(item) for item in value]
    return value


def to_csv(rows: Sequence[Row]) -> str:
    """One line for each row, without single rounds and operations."""
    table = []
    for row in rows:
        flat = {}
        for field, value in vars(row).items():
            if isinstance(value, Spread):
                names = (f'{field}_{name}' for name in value._fields)
                flat |= zip(names, value)
            elif not isinstance(value, list):
                flat[field] = value
        table.append(flat)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()


def to_markdown(rows: Sequence[Row], batch: int, machine: Machine) -> str:
    """Tables for people: of the models, their growth, their operations."""
    tables = [
        _table(_HEADER, [_to_cells(row, batch, machine) for row in rows])
    ]
    if len({(row.height, row.width) for row in rows}) > 1:
        tables.append(_table(_GROWTH_HEADER, _growth(rows, batch)))
    if any(row.floor_seconds for row in rows):
        tables.append(_table(_FLOOR_HEADER, _floors(rows)))
    if any(row.operations for row in rows):
        tables.append(_table(_OPERATIONS_HEADER, _operations(rows)))
    return '\n'.join(tables)


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


def _growth(rows: Sequence[Row], batch: int) -> list[list[str]]:
    """Time and memory of one token, and how they grow with the image.

    A growth of 1 is a cost in proportion to the tokens. What it is compared
    with is the first size of the same model and mode.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.model, row.mode), []).append(row)
    lines = []
    for (model, mode), group in groups.items():
        times = [r.seconds.median / (batch * r.tokens) for r in group]
        kept = [(r.kept_bytes or 0) / r.tokens for r in group]
        for row, time, memory in zip(group, times, kept):
            cells = [model, mode, f'{row.height} x {row.width}']
            cells += [f'{time * 1e9:,.0f}', f'{time / times[0]:.2f}']
            if memory:
                cells += [f'{memory:,.0f}', f'{memory / kept[0]:.2f}']
            lines.append(cells + [''] * (len(_GROWTH_HEADER) - len(cells)))
    return lines


def _floors(rows: Sequence[Row]) -> list[list[str]]:
    """The products of each model, beside what the first one really takes."""
    first = {}
    lines = []
    for row in rows:
        where = (row.height, row.width, row.mode)
        first.setdefault(where, row.seconds.median)
        lines.append(
            [
                row.model,
                f'{row.height} x {row.width}',
                row.mode,
                f'{row.floor_seconds * 1e3:.4g}',
                f'{row.floor_seconds / row.seconds.median:.0%}',
                f'{row.floor_seconds / first[where]:.3f}',
            ]
        )
    return lines


def _operations(rows: Sequence[Row]) -> list[list[str]]:
    return [
        [
            row.model,
            f'{row.height} x {row.width}',
            row.mode,
            f'`{operation.name}`',
            str(operation.calls),
            f'{operation.seconds * 1e3:.4g}',
            f'{operation.share:.0%}',
        ]
        for row in rows
        for operation in row.operations
    ]


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ['---'] * len(header)
    return ''.join(
        f'| {" | ".join(cells)} |\n' for cells in (header, rule, *lines)
    )
