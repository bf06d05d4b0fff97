"""Pictures of a benchmark: time against tokens, and multiply-adds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

_SIZE = (10, 4.5)
_DPI = 110
_SLOPE = 'in proportion to the tokens'
_FLOOR = 'its matrix products alone'


def plot_growth(rows: Sequence[dict], path: str | Path) -> None:
    """Draw the time of a step against the tokens of an image, as PNG.

    Both axes are logarithmic: a cost in proportion to the tokens rises by
    the slope of the dotted line.

    Args:
        rows: Rows of a benchmark's results: ``model``, ``mode``, ``tokens``
            and ``seconds`` with ``median``, ``low`` and ``high``.
        path: File to write.
    """
    figure, columns = _columns(rows)
    for axes, mode in columns:
        shown = [row for row in rows if row['mode'] == mode]
        for model in _names(shown):
            own = [row for row in shown if row['model'] == model]
            tokens = [row['tokens'] for row in own]
            low, median, high = zip(*map(_milliseconds, own))
            (line,) = axes.plot(tokens, median, marker='o', label=model)
            axes.fill_between(
                tokens, low, high, alpha=0.2, color=line.get_color()
            )
        ends = [pick(row['tokens'] for row in shown) for pick in (min, max)]
        start = min(row['seconds']['median'] for row in shown)
        _draw_line(axes, ends, (start, start * ends[1] / ends[0]), _SLOPE)
        axes.set(
            xscale='log',
            yscale='log',
            xlabel='tokens of an image at stride 4',
            ylabel='ms a step',
        )
        axes.set_xticks(sorted({row['tokens'] for row in shown}))
        axes.xaxis.set_major_formatter('{x:,.0f}')
        axes.minorticks_off()
        # Few of them: between the powers of ten they would hide each other.
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter('{x:,g}')
    _finish(figure, columns, path)


def plot_cost(
    rows: Sequence[dict], matmul_rate: float, path: str | Path
) -> None:
    """Draw the time of a step against its multiply-adds, as PNG.

    Below the dotted line is what the machine cannot reach: there, a step
    would be faster than its matrix products alone.

    Args:
        rows: As :func:`plot_growth` takes them, with ``flops``, two for each
            multiply-add; of each model the first size is shown.
        matmul_rate: Operations that the machine does in a second, in a large
            matrix product.
        path: File to write.
    """
    figure, columns = _columns(rows)
    for axes, mode in columns:
        shown = [row for row in rows if row['mode'] == mode]
        firsts = [
            next(row for row in shown if row['model'] == model)
            for model in _names(shown)
        ]
        for row in firsts:
            low, median, high = _milliseconds(row)
            axes.errorbar(
                row['flops'] / 2e9,
                median,
                yerr=[[median - low], [high - median]],
                marker='o',
                capsize=3,
                label=row['model'],
            )
        most = max(row['flops'] for row in firsts)
        _draw_line(axes, (0, most / 2e9), (0, most / matmul_rate), _FLOOR)
        axes.margins(0.08)
        axes.set(
            xlim=(0, None),
            ylim=(0, None),
            xlabel='multiply-adds of a step (G)',
            ylabel='ms a step',
        )
    _finish(figure, columns, path)


def _columns(rows: Sequence[dict]) -> tuple[Figure, list[tuple[Axes, str]]]:
    modes = list(dict.fromkeys(row['mode'] for row in rows))
    figure = Figure(figsize=_SIZE, layout='constrained')
    axes = figure.subplots(1, len(modes), squeeze=False)[0]
    return figure, list(zip(axes, modes))


def _names(rows: Sequence[dict]) -> list[str]:
    return list(dict.fromkeys(row['model'] for row in rows))


def _milliseconds(row: dict) -> list[float]:
    return [1e3 * row['seconds'][name] for name in ('low', 'median', 'high')]


def _draw_line(
    axes: Axes,
    across: tuple[float, float],
    seconds: tuple[float, float],
    label: str,
) -> None:
    axes.plot(
        across,
        [1e3 * value for value in seconds],
        color='grey',
        linestyle=':',
        label=label,
    )


def _finish(
    figure: Figure, columns: list[tuple[Axes, str]], path: str | Path
) -> None:
    for axes, mode in columns:
        axes.set_title(mode)
        axes.grid(alpha=0.3, which='both')
        axes.spines[['top', 'right']].set_visible(False)
    handles: Any = columns[0][0].get_legend_handles_labels()
    figure.legend(*handles, loc='outside lower center', frameon=False, ncols=3)
    figure.savefig(path, dpi=_DPI)
