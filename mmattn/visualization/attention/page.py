"""Write the pictures of attention and an HTML page that shows them."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from .explainers import count_heads
from .explanations import AttentionRows, Clusters, Modulation, explain
from .figures import Scene, plot_explanation
from .images import NetworkImage, Size, fit_tokens
from .recording import CallRecorder

PAGE = 'index.html'

# Kind of explanation -> part of the file name.
_KINDS = {
    AttentionRows: 'attention',
    Clusters: 'clusters',
    Modulation: 'modulator',
}

_HEAD = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Attention</title><style>
body { font: 15px/1.45 sans-serif; margin: 2em auto; max-width: 72em;
       padding: 0 1em; color: #1f2328; }
h1 { font-size: 1.5em; } h2 { font-size: 1.1em; margin-top: 2.5em; }
h2, nav { font-family: monospace; }
dl { display: grid; grid-template-columns: max-content auto; gap: 0 1em; }
dt { color: #59636e; } dd { margin: 0; overflow-wrap: anywhere; }
img { max-width: 100%; } a { color: #0969da; }
</style></head><body><h1>Attention</h1>"""


def write_page(
    folder: str | Path,
    image: NetworkImage,
    pixels: Sequence[Size],
    calls: CallRecorder,
    facts: dict[str, str],
    index: int = 0,
    max_heads: int = 4,
) -> list[Path]:
    """Draw what layers did with an image.

    Args:
        folder: Folder for the pictures and ``index.html``; created if
            missing.
        image: The image.
        pixels: ``(row, column)`` on ``image.picture``.
        calls: The recorded calls of the layers to show.
        facts: Label and text of each line at the top of the page.
        index: Index of the image in the recorded batch. Defaults to 0.
        max_heads: Heads to show per layer, spread evenly. Defaults to 4.

    Returns:
        The pictures, in the order of the calls. Layers whose tokens do not
        map to the image, such as a sequence of several maps, have none.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    height, width = image.content_size
    facts = facts | {
        'network input': f'{height} x {width} pixels',
        'selected pixels there': ', '.join(
            f'{i}: {pixel}' for i, pixel in enumerate(pixels, start=1)
        ),
    }
    links, sections, paths = [], [], []
    for name, inputs in calls.inputs.items():
        layer = calls.layers[name]
        grid = fit_tokens(inputs[0].shape[1:3], image.picture.shape[:2])
        if grid is None:
            continue
        kind, heads = type(layer).__name__, count_heads(layer)
        (rows, columns), (height, width) = grid
        title = (
            f'{name}\n{kind}, {heads} head{"s" * (heads > 1)}; '
            f'{rows} x {columns} tokens of {height:.4g} x {width:.4g} '
            'pixels each'
        )
        scene = Scene(image.picture, pixels, grid, title, max_heads)
        one = tuple(x[index : index + 1] for x in inputs)
        tokens = [grid.token_at(*pixel) for pixel in pixels]
        explanations = explain(layer, one, tokens)
        if explanations:
            label = escape(name)
            links.append(f'<a href="#{label}">{label}</a><br>')
            text = escape(f'{kind}({layer.extra_repr()})')
            sections.append(f'<h2 id="{label}">{label}</h2><p>{text}</p>')
        for explanation in explanations:
            shown = _KINDS[type(explanation)]
            path = folder / f'{name}.{shown}.png'
            plot_explanation(explanation, scene).savefig(path)
            paths.append(path)
            link = escape(path.name)  # relative: the folder can be moved
            sections.append(
                f'<p><a href="{link}"><img src="{link}" loading="lazy" '
                f'alt="{shown.capitalize()} of {label}"></a></p>'
            )
    table = [
        f'<dt>{escape(label)}</dt><dd>{escape(text)}</dd>'
        for label, text in facts.items()
    ]
    lines = [_HEAD, '<dl>', *table, '</dl><nav>', *links, '</nav>']
    page = '\n'.join([*lines, *sections, '</body></html>', ''])
    (folder / PAGE).write_text(page, encoding='utf-8')
    return paths
