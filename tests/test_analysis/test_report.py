"""Rows as JSON, CSV and Markdown."""

import csv
import io
import json

import pytest

from mmattn.analysis.comparison import Row
from mmattn.analysis.machine import Machine
from mmattn.analysis.operations import Operation
from mmattn.analysis.report import to_csv, to_markdown, to_records
from mmattn.analysis.timing import Spread

BATCH = 2
MACHINE = Machine('a processor', matmul_rate=1e11, copy_bandwidth=1e10)
ONE = Spread(1.0, 1.0, 1.0)


def row(model='swin', side=8, mode='training', **changes):
    tokens = (side // 4) ** 2
    values = dict(
        model=model,
        height=side,
        width=side,
        tokens=tokens,
        mode=mode,
        seconds=Spread(0.2 * tokens, 0.1, 9.0),
        ratio=ONE,
        cpu_seconds=Spread(0.3, 0.2, 0.4),
        cpu_ratio=ONE,
        rounds=[0.1, 0.2, 9.0],
        parameters=28_000_000,
        multiply_adds=4_500_000_000,
        flops=10**10,
        moved_bytes=5e8,
        kept_bytes=1e6 * tokens,
        peak_bytes=3_000_000_000,
        operations=[],
    )
    return Row(**values | changes)


def cells(line):
    return [cell.strip() for cell in line.strip('|\n').split('|')]


def test_records_are_plain():
    operation = Operation('aten::mm', 3, 0.1, 0.5)
    (record,) = to_records([row(operations=[operation])])
    assert json.loads(json.dumps(record)) == record
    assert record['seconds'] == dict(median=0.8, low=0.1, high=9.0)
    assert record['operations'] == [operation._asdict()]
    assert record['rounds'] == [0.1, 0.2, 9.0]


def test_csv_has_a_line_for_each_row():
    rows = [row(), row('boat', kept_bytes=None)]
    lines = list(csv.DictReader(io.StringIO(to_csv(rows))))
    assert [line['model'] for line in lines] == ['swin', 'boat']
    assert float(lines[0]['seconds_low']) == 0.1
    assert float(lines[0]['cpu_seconds_high']) == 0.4
    assert lines[1]['kept_bytes'] == ''
    assert not {'rounds', 'operations', 'seconds'} & set(lines[0])


def test_markdown_of_one_size():
    ratio = Spread(1.25, 1.2, 1.3)
    text = to_markdown([row(), row('boat', ratio=ratio)], BATCH, MACHINE)
    header, rule, first, second = text.splitlines()
    assert len(cells(header)) == len(cells(rule)) == len(cells(first))
    table = dict(zip(cells(header), cells(second)))
    assert table == {
        'model': 'boat',
        'size': '8 x 8',
        'mode': 'training',
        'ms (quartiles)': '800 (100-9000)',
        'ratio (quartiles)': '1.250 (1.200-1.300)',
        'ratio of CPU time': '1.000',
        'images/s': '2.5',
        'M parameters': '28.00',
        'G multiply-adds': '4.50',
        # 1e10 operations at 1e11 a second are 100 of the 800 ms.
        'of matmul rate': '12%',
        # Twice 5e8 bytes at 1e10 a second.
        'floor ms: products, moves': '100, 100',
        'MB kept/image': '4.0',
        'GB peak': '3.00',
    }


def test_markdown_of_growth():
    rows = [
        row(),
        row('boat', mode='inference', kept_bytes=None),
        row(side=16, seconds=Spread(4.8, 4.0, 5.0), kept_bytes=8e6),
        row('boat', 16, 'inference', kept_bytes=None),
    ]
    _, table = to_markdown(rows, BATCH, MACHINE).split('\n\n')
    lines = [cells(line) for line in table.splitlines()[2:]]
    assert lines == [
        ['swin', 'training', '8 x 8', *'100,000,000 1.00'.split()]
        + ['1,000,000', '1.00'],
        ['swin', 'training', '16 x 16', *'150,000,000 1.50'.split()]
        + ['500,000', '0.50'],
        ['boat', 'inference', '8 x 8', '100,000,000', '1.00', '', ''],
        ['boat', 'inference', '16 x 16', '100,000,000', '1.00', '', ''],
    ]


def test_markdown_of_floors():
    rows = [row(floor_seconds=0.4), row('boat', floor_seconds=0.2)]
    _, table = to_markdown(rows, BATCH, MACHINE).split('\n\n')
    assert [cells(line) for line in table.splitlines()[2:]] == [
        ['swin', '8 x 8', 'training', '400', '50%', '0.500'],
        ['boat', '8 x 8', 'training', '200', '25%', '0.250'],
    ]


@pytest.mark.parametrize('operations', [[], [Operation('a::b', 7, 0.1, 0.5)]])
def test_markdown_of_operations(operations):
    text = to_markdown([row(operations=operations)], BATCH, MACHINE)
    expected = ['swin', '8 x 8', 'training', '`a::b`', '7', '100', '50%']
    found = cells(text.splitlines()[-1])
    assert (found == expected) == bool(operations)
