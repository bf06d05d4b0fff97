"""Render the results of coverage runs as Markdown."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import packages_distributions, version

from upstream_bugs import BUGS

PASSED, UNSUPPORTED, FAILED = 'passed', 'unsupported', 'failed'
UNCHECKED = 'unchecked'
# Reason of a failure that is independent of the new backbone.
SOURCE_FAILS = 'the source fails the check as well'
STATUSES = (PASSED, UNSUPPORTED, UNCHECKED, FAILED)

_HEADER = """# Swapping the backbone of every shipped config

Results of `tools/swap_backbone.py` for all configs of the installed codebases
except `_base_` files. Written by

```bash
{commands}
```

with {versions}. Results by version of the code (a hash of its source):
{hashes}.

- **passed**: the new config was written and read back as planned, and its
  model was built and run on synthetic samples: it has a finite loss to which
  every parameter of the backbone contributes, and a prediction. Images are
  64 x 96, larger for detectors that add coarser maps; numbers of proposals,
  queries, points and classes are reduced; weights are not initialized.
  Language models and GPU operations of mmcv are replaced by fakes. Configs
  whose models are then equal are run once: {distinct}.
- **with a workaround**: passed, but the config as shipped does not run with
  any backbone because of a known upstream bug, which this run worked around
  (`--check` of the tool does not). The bugs are listed below.
- **unsupported**: the backbone cannot be swapped, for the given reason;
  nothing was written.
- **unchecked**: written, but the model needs a package that is not installed
  here.
- **failed**: written, but the model does not build or run, or its optimizer
  is wrong. "As shipped too": the config fails the same check with its own
  backbone.
"""

_MAPS = """
## Configs whose backbone returns maps

mmdet and mmseg: all outputs are maps, from fine to coarse (dilated stages may
share a stride); mmpretrain: one map. Left out are backbones that return
tokens, vectors or several maps of one stride, U-Nets and other whole
networks, algorithms that mask patches inside their backbone, and configs
without a model.

"""

_OPTIMIZERS = """
## Optimizers

Parameter groups of the swapped config compared with those of its source, as
multipliers of learning rate and weight decay (swaps replace optimizers other
than AdamW). Outside of the backbone both are those of the source. Inside, the
learning rate is that of the old backbone, times a factor for each layer where
the source has a layer decay, and the weight decay is 0 for norms and position
tables and for nothing else, except biases and other 1-d parameters where the
source exempts them in the whole model.

"""

_BUGS = """
## Upstream bugs

This run worked around them in its own process. Line numbers refer to the
versions above.

"""


def render_page(rows: Sequence[Mapping], totals: Mapping[str, int]) -> str:
    """Render the page.

    Args:
        rows: One row of the journal for each config and backbone.
        totals: Number of configs that each codebase ships.
    """
    runs = _group(rows, ('codebase', 'backbone'))
    keys = {(row['backbone'], row['key']) for row in rows if 'key' in row}
    hashes = Counter(row.get('version', '') for row in rows)
    header = _HEADER.format(
        commands='\n'.join(
            f'python tools/dev/swap_coverage.py {codebase} '
            f'--backbone {backbone}  # {len(found)} of {totals[codebase]} '
            'configs'
            for (codebase, backbone), found in runs.items()
        ),
        versions=', '.join(_versions()),
        hashes=', '.join(f'{name} ({n})' for name, n in hashes.items()),
        distinct=f'{len(keys)} models for '
        f'{sum("key" in row for row in rows)} configs',
    )
    maps = {run: list(filter(returns_maps, runs[run])) for run in runs}
    parts = [
        header,
        '\n## All configs\n',
        _counts(runs),
        _MAPS,
        _counts(maps),
        _OPTIMIZERS,
        _optimizers(runs),
        _BUGS,
        _bugs(rows),
        '\n## Reasons\n',
        _reasons(rows),
        '\n## Algorithms\n',
        _algorithms(rows),
        '\n## Failures\n',
        _failures(rows),
    ]
    return '\n'.join(part.strip('\n') + '\n' for part in parts)


def returns_maps(row: Mapping) -> bool:
    """Whether the old backbone returned a pyramid of maps, or one map."""
    strides = row.get('strides') or []
    if not strides or 0 in strides or strides != sorted(strides):
        return False
    if row['codebase'] == 'mmpretrain':
        return True
    return len(strides) == 1 or len(set(strides)) > 1


def _versions() -> Iterable[str]:
    installed = packages_distributions()
    for package in ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain'):
        for name in dict.fromkeys(installed.get(package, ())):
            yield f'{name} {version(name)}'


def _group(rows: Iterable[Mapping], keys: Sequence[str]) -> dict:
    groups = defaultdict(list)
    for row in rows:
        groups[tuple(row.get(key) or '' for key in keys)].append(row)
    return dict(sorted(groups.items()))


def _table(*lines: Sequence) -> str:
    """Render a table; the first line is its header."""
    rows = [f'| {" | ".join(map(str, line))} |' for line in lines]
    return '\n'.join([rows[0], '|---' * len(lines[0]) + '|', *rows[1:]])


def _counts(runs: Mapping) -> str:
    header = (
        'codebase',
        'backbone',
        'configs',
        'passed',
        'with a workaround',
        'passed as shipped',
        *STATUSES[1:],
        'failed as shipped too',
    )
    lines = []
    for (codebase, backbone), rows in runs.items():
        found = Counter(row['status'] for row in rows)
        bugs = sum(bool(row.get('bugs')) for row in rows)
        lines.append(
            (
                codebase,
                backbone,
                len(rows),
                _share(found[PASSED], len(rows)),
                bugs,
                _share(found[PASSED] - bugs, len(rows)),
                *(found[status] for status in STATUSES[1:]),
                sum(row.get('reason') == SOURCE_FAILS for row in rows),
            )
        )
    return _table(header, *lines)


def _optimizers(runs: Mapping) -> str:
    header = (
        'codebase',
        'backbone',
        'swapped configs with an optimizer',
        'right',
        'with layer decay',
        'with exempt biases',
        'wrong',
    )
    lines = []
    for run, rows in runs.items():
        rows = [r for r in rows if r.get('optimizer') in ('right', 'wrong')]
        right = [row for row in rows if row['optimizer'] == 'right']
        lines.append(
            (
                *run,
                len(rows),
                len(right),
                sum(row['layer_decay'] for row in right),
                sum(row['exempt_biases'] for row in right),
                len(rows) - len(right),
            )
        )
    return _table(header, *lines)


def _share(part: int, whole: int) -> str:
    return f'{part} ({part / max(whole, 1):.1%})'


def _reasons(rows: Sequence[Mapping]) -> str:
    groups = _group(rows, ('codebase', 'backbone', 'status', 'reason'))
    return _table(
        ('codebase', 'backbone', 'status', 'reason', 'configs'),
        *((*key, len(found)) for key, found in groups.items() if key[-1]),
    )


def _bugs(rows: Sequence[Mapping]) -> str:
    lines = []
    for bug in BUGS:
        counts = Counter(
            row['backbone']
            for row in rows
            if row['codebase'] == bug.codebase
            and bug.name in (row.get('bugs') or ())
        )
        met = ', '.join(f'{name}: {n}' for name, n in sorted(counts.items()))
        lines.append((bug.codebase, bug.name, met or 'none', bug.description))
    return _table(('codebase', 'bug', 'configs', 'description'), *lines)


def _algorithms(rows: Sequence[Mapping]) -> str:
    lines = []
    groups = _group(rows, ('codebase', 'algorithm', 'backbone'))
    for key, found in groups.items():
        counts = Counter(row['status'] for row in found)
        lines.append((*key, *(counts[status] or '' for status in STATUSES)))
    return _table(('codebase', 'algorithm', 'backbone', *STATUSES), *lines)


def _failures(rows: Sequence[Mapping]) -> str:
    return (
        '\n'.join(
            f'- `{row["config"]}`, {row["backbone"]}: {_escape(row["detail"])}'
            for row in rows
            if row['status'] == FAILED
        )
        or 'None.'
    )


def _escape(text: str) -> str:
    return text.replace('<', '&lt;').replace('|', '&#124;')
