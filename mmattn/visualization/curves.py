"""Plot loss and metrics from the scalars that mmengine logs."""

import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure


def plot_curves(
    scalars: str | Path,
    metrics: dict[str, str],
    iters_per_epoch: int,
    path: str | Path,
    title: str = '',
) -> None:
    """Plot the losses on the left and the metrics on the right.

    Args:
        scalars: ``vis_data/scalars.json`` of a run, which LocalVisBackend
            writes.
        metrics: Key and label of each metric.
        iters_per_epoch: Iterations per epoch.
        path: File to write.
        title: Title of the figure. Defaults to none.

    Raises:
        ValueError: If the scalars are damaged.
    """
    try:
        lines = Path(scalars).read_text().splitlines()
        records = [json.loads(line) for line in lines]
        names = {n for r in records for n in r if n.startswith('loss')}
        curves = {
            name: extract_curve(records, name, iters_per_epoch)
            for name in (*names, *metrics)
        }
    except Exception as error:  # damaged files raise anything
        raise ValueError(f'cannot plot {scalars}: {error}') from error
    figure = Figure(figsize=(10, 4), dpi=110, layout='constrained')
    left, right = figure.subplots(1, 2)
    for name in sorted(names):
        epochs, values = curves[name]
        is_sum = name == 'loss'
        left.plot(
            epochs,
            values,
            label='total' if is_sum else name.removeprefix('loss_'),
            marker='.' if len(values) == 1 else None,
            linewidth=2.2 if is_sum else 1.1,
            color='black' if is_sum else None,
        )
    for name, label in metrics.items():
        epochs, values = curves[name]
        if not values:
            continue
        (line,) = right.plot(epochs, values, marker='o', label=label)
        right.annotate(
            f'{values[-1]:.3g}',
            (epochs[-1], values[-1]),
            textcoords='offset points',
            xytext=(0, 7),
            ha='right',
            color=line.get_color(),
        )
    for axes, label in ((left, 'training loss'), (right, 'validation')):
        axes.set(xlabel='epoch', ylabel=label, ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.spines[['top', 'right']].set_visible(False)
        axes.legend(frameon=False)
    figure.suptitle(title)
    figure.savefig(path)


def extract_curve(
    records: Sequence[dict], name: str, iters_per_epoch: int
) -> tuple[list[float], list[float]]:
    """Epochs and values of a scalar.

    In epoch-based runs mmengine counts training records (which have an
    ``epoch``) in iterations and validation records in epochs.

    Args:
        records: Lines of the scalars.
        name: Key of a value, such as ``loss`` or ``coco/bbox_mAP``.
        iters_per_epoch: Iterations per epoch.
    """
    found = [record for record in records if name in record]
    epochs = [
        record['step'] / (iters_per_epoch if 'epoch' in record else 1)
        for record in found
    ]
    return epochs, [float(record[name]) for record in found]
