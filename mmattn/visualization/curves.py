"""Plot loss and metrics from the scalars that mmengine logs."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

_MAX_DRAWN = 1e100  # beyond, axes overflow


class Curve(NamedTuple):
    """A value during training: ``epochs`` and ``values`` of equal length."""

    epochs: list[float]
    values: list[float]


def read_scalars(path: str | Path) -> list[dict]:
    """Read ``vis_data/scalars.json``: one record per line.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If a line is not a JSON object.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f'{path} does not exist; training with a Runner and '
            'LocalVisBackend writes it'
        )
    records = []
    text = path.read_text(encoding='utf-8', errors='replace')
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            raise ValueError(
                f'line {number} of {path} is not a JSON object: {line[:40]!r}'
            )
        records.append(record)
    return records


def extract_curve(
    records: Sequence[dict], name: str, iters_per_epoch: int
) -> Curve:
    """Extract the curve of ``name`` over epochs.

    In epoch-based runs mmengine counts training records (which have an
    ``epoch``) in iterations and validation records in epochs.

    Args:
        records: Result of :func:`read_scalars`.
        name: Key of a value, such as ``loss`` or ``coco/bbox_mAP``.
        iters_per_epoch: Iterations per epoch.
    """
    epochs, values = [], []
    for record in records:
        if name in record:
            is_train = 'epoch' in record
            scale = iters_per_epoch if is_train else 1
            epochs.append(_number(record.get('step')) / scale)
            values.append(_number(record[name]))
    return Curve(epochs, values)


def plot_curves(
    records: Sequence[dict],
    metrics: dict[str, str],
    iters_per_epoch: int,
    path: str | Path,
    title: str = '',
) -> None:
    """Plot the losses on the left and the metrics on the right.

    Args:
        records: Result of :func:`read_scalars`.
        metrics: Key and label of each metric.
        iters_per_epoch: Iterations per epoch.
        path: File to write.
        title: Title of the figure. Defaults to none.

    Raises:
        ValueError: If the records have neither a loss nor a metric.
    """
    names = sorted({n for r in records for n in r if n.startswith('loss')})
    losses = {n: extract_curve(records, n, iters_per_epoch) for n in names}
    scores = {
        label: extract_curve(records, name, iters_per_epoch)
        for name, label in metrics.items()
    }
    scores = {label: c for label, c in scores.items() if c.values}
    if not losses and not scores:
        raise ValueError(
            f'none of the {len(records)} records has a loss or one of the '
            f'metrics {list(metrics)}'
        )
    figure = Figure(figsize=(10, 4), layout='constrained')
    left, right = figure.subplots(1, 2)
    for name, curve in losses.items():
        is_sum = name == 'loss'
        left.plot(
            *curve,
            label='total' if is_sum else name.removeprefix('loss_'),
            marker='.' if len(curve.values) == 1 else None,
            linewidth=2.2 if is_sum else 1.1,
            color='black' if is_sum else None,
        )
    left.set(xlabel='epoch', ylabel='training loss', ylim=(0, None))
    for label, curve in scores.items():
        (line,) = right.plot(*curve, marker='o', label=label)
        right.annotate(
            f'{curve.values[-1]:.3g}',
            (curve.epochs[-1], curve.values[-1]),
            textcoords='offset points',
            xytext=(0, 7),
            ha='right',
            color=line.get_color(),
        )
    right.set(xlabel='epoch', ylabel='validation', ylim=(0, None))
    for axes, has_lines in ((left, losses), (right, scores)):
        axes.grid(alpha=0.3)
        axes.spines[['top', 'right']].set_visible(False)
        if has_lines:
            axes.legend(frameon=False)
    if title:
        figure.suptitle(title)
    figure.savefig(path, dpi=110)


def _number(value: object) -> float:
    """A number that can be drawn, else NaN: a gap in the curve."""
    try:
        number = float(value)
    except (ArithmeticError, TypeError, ValueError):
        return math.nan
    return number if abs(number) < _MAX_DRAWN else math.nan
