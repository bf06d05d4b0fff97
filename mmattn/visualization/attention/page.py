"""Write the pictures of attention, and one page that shows them all."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import torch.nn as nn
from matplotlib.figure import Figure

from .explanations import (
    AttentionRows,
    Clusters,
    Explanation,
    Modulation,
    explain,
)
from .figures import Scene, plot_explanation
from .geometry import Size, TokenGrid, fit_tokens
from .images import NetworkImage
from .panels import save_figure
from .recording import CallRecorder

PAGE = 'index.html'


class _Kind(NamedTuple):
    """An explanation on the page: in file names, and in words."""

    name: str
    caption: str


_KINDS = {
    AttentionRows: _Kind(
        'attention',
        'What the token of each chosen pixel attends to. Outside of the '
        'white outline it cannot attend.',
    ),
    Clusters: _Kind(
        'clusters',
        'Tokens of one colour are in one group, wherever they lie. Each '
        'bisection halves every group; attention stays inside the last ones '
        '(and next to the cut that made them). On the right, the clusters '
        'that hold the chosen pixels.',
    ),
    Modulation: _Kind(
        'modulator',
        'What convolutions of each size see, and the modulator that is made '
        'of them and multiplies the values.',
    ),
}

_STYLE = """
body { font: 15px/1.45 sans-serif; margin: 2em auto; max-width: 72em;
       padding: 0 1em; color: #1f2328; }
h1 { font-size: 1.5em; } h2 { font-size: 1.1em; margin-top: 2.5em; }
h2, nav { font-family: monospace; }
dl { display: grid; grid-template-columns: max-content auto; gap: 0 1em; }
dt { color: #59636e; } dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 1em 0; } figcaption { color: #59636e; }
img { max-width: 100%; } a { color: #0969da; }
"""


class _Section(NamedTuple):
    """A layer on the page: pictures and what each shows."""

    name: str
    layer: nn.Module
    pictures: list[tuple[Path, str]]


def write_page(
    folder: str | Path,
    image: NetworkImage,
    pixels: Sequence[Size],
    layers: dict[str, nn.Module],
    calls: CallRecorder,
    facts: dict[str, str],
    index: int = 0,
    max_heads: int = 4,
) -> list[Path]:
    """Draw what layers did with an image.

    Args:
        folder: Where the pictures and ``index.html`` go; made if missing.
        image: The image.
        pixels: ``(row, column)`` of ``image.picture``.
        layers: The layers to show, by name.
        calls: What they were called with.
        facts: What the top of the page says, label to text.
        index: Which image of the recorded batch it is. Defaults to 0.
        max_heads: Heads to show of a layer. Defaults to 4, spread evenly.

    Returns:
        The pictures, in the order of the calls. Layers whose tokens have no
        place on the image, such as a sequence of several maps, have none.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sections = []
    for name, inputs in calls.inputs.items():
        grid = fit_tokens(inputs[0].shape[1:3], image.picture.shape[:2])
        if grid is None:
            continue
        scene = Scene(
            image.picture,
            pixels,
            grid,
            name,
            _describe(layers[name], grid),
            max_heads,
        )
        one = tuple(x[index : index + 1] for x in inputs)
        tokens = [grid.token_at(*pixel) for pixel in pixels]
        pictures = [
            _save(plot_explanation(found, scene), folder, name, found)
            for found in explain(layers[name], one, tokens)
        ]
        if pictures:
            sections.append(_Section(name, layers[name], pictures))
    page = _page(image, pixels, facts, sections)
    (folder / PAGE).write_text(page, encoding='utf-8')  # as its head says
    return [path for section in sections for path, _ in section.pictures]


def _describe(layer: nn.Module, grid: TokenGrid) -> str:
    heads = '1 head' if layer.num_heads == 1 else f'{layer.num_heads} heads'
    size, cell = (
        ' x '.join(f'{side:.4g}' for side in sides)
        for sides in (grid.size, grid.cell)
    )
    return (
        f'{type(layer).__name__}, {heads}; map of {size} tokens of {cell} '
        'pixels'
    )


def _save(
    figure: Figure, folder: Path, name: str, explanation: Explanation
) -> tuple[Path, str]:
    kind = _KINDS[type(explanation)]
    path = folder / f'{name}.{kind.name}.png'
    save_figure(figure, path)
    return path, kind.caption


def _page(
    image: NetworkImage,
    pixels: Sequence[Size],
    facts: dict[str, str],
    sections: list[_Section],
) -> str:
    height, width = image.filled
    facts = dict(
        facts,
        **{
            'as the network sees it': f'{height} x {width} pixels',
            'chosen pixels there': ', '.join(
                f'{i}: {pixel}' for i, pixel in enumerate(pixels, start=1)
            ),
        },
    )
    lines = [
        '<!DOCTYPE html>',
        '<html lang="en"><head><meta charset="utf-8">',
        '<title>Attention</title>',
        f'<style>{_STYLE}</style></head><body>',
        '<h1>Attention</h1>',
        '<dl>',
        *(
            f'<dt>{escape(label)}</dt><dd>{escape(text)}</dd>'
            for label, text in facts.items()
        ),
        '</dl>',
        '<nav>',
        *(
            f'<a href="#{escape(s.name)}">{escape(s.name)}</a><br>'
            for s in sections
        ),
        '</nav>',
    ]
    for section in sections:
        lines.append(
            f'<h2 id="{escape(section.name)}">{escape(section.name)}</h2>'
        )
        kind, more = type(section.layer).__name__, section.layer.extra_repr()
        lines.append(f'<p>{escape(f"{kind}({more})")}</p>')
        for path, caption in section.pictures:
            # A link beside the page: the folder can be moved.
            link = escape(path.name)
            lines.append(
                f'<figure><a href="{link}"><img src="{link}" loading="lazy" '
                f'alt="{link}"></a><figcaption>{escape(caption)}</figcaption>'
                '</figure>'
            )
    return '\n'.join([*lines, '</body></html>', ''])
