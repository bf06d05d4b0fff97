"""The page of results of coverage runs."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from mmattn.stack import find_installed

PASSED, REFUSED, FAILED = 'passed', 'refused', 'failed'
UNCHECKED = 'unchecked'
# Reason of a failure that the old backbone has no part in either.
SOURCE_FAILS = 'the source fails the check as well'
STATUSES = (PASSED, REFUSED, UNCHECKED, FAILED)

_HEAD = """# Swapping the backbone of every config that ships

What `tools/swap_backbone.py` makes of the configs of the installed codebases
(`_base_` files aside), each in a process of its own. Written by

```bash
{commands}
```

with {versions}.

- **passed**: written, read again as decided, built, and run on synthetic
  samples: a finite loss that every parameter of the backbone takes part in,
  and a prediction. Images of 64 x 96, few proposals, queries, points and
  classes, weights not initialised. Language models are stood in for. Of
  configs whose models are the same then, one is run: {distinct}.
- **refused**: no swap that makes sense, with the reason; nothing is written.
- **unchecked**: written, but something that the model needs, with any
  backbone, is not on this machine.
- **failed**: written, and the model does not build or run. "With any
  backbone": the config as it ships fails the same check, through a mistake in
  the codebase (the Grounding DINO of mmdet 3.5.1 does not run, for instance)
  or through samples that this check does not know to make. "Those that run"
  are the configs without these and without the unchecked ones.
"""

_GOAL = """
## Configs whose backbone yields maps

mmdet, mmseg: every output is a map, and they go from fine to coarse (a
dilated stage may keep its stride); mmpretrain: one map. Found by running the
old backbone. Backbones that give tokens, vectors or maps of one stride, U-Nets
and other backbones that are a whole network, algorithms that hide patches
inside their backbone, and configs without a model are in the table above
only.

"""


def render_page(rows: Sequence[Mapping], totals: Mapping[str, int]) -> str:
    """Write the page in Markdown.

    Args:
        rows: Of a journal, each config and backbone once.
        totals: How many configs each codebase ships.

    Returns:
        The text.
    """
    runs = _group(rows, ('host', 'backbone'))
    keys = {(row['backbone'], row['key']) for row in rows if 'key' in row}
    parts = [
        _HEAD.format(
            commands='\n'.join(
                f'python tools/swap_backbone.py --coverage {host} '
                f'--backbone {backbone}  # {len(found)} of {totals[host]} '
                'configs'
                for (host, backbone), found in runs.items()
            ),
            versions=', '.join(
                f'{item.distribution} {item.version}'
                for item in find_installed()
            ),
            distinct=f'{len(keys)} models for '
            f'{sum("key" in row for row in rows)} configs',
        ),
        _versions(rows),
        '\n## All configs\n',
        _counts(runs),
        _GOAL,
        _counts({run: list(filter(yields_maps, runs[run])) for run in runs}),
        '\n## Reasons\n',
        _reasons(rows),
        '\n## Algorithms\n',
        _algorithms(rows),
        '\n## What failed\n',
        _failures(rows),
    ]
    return '\n'.join(part.strip('\n') + '\n' for part in parts)


def yields_maps(row: Mapping) -> bool:
    """Whether the old backbone gave a pyramid of maps, or one map."""
    strides = row.get('strides') or []
    if not strides or 0 in strides or strides != sorted(strides):
        return False
    if row['host'] == 'mmpretrain':
        return True
    return len(strides) == 1 or len(set(strides)) > 1


def _versions(rows: Sequence[Mapping]) -> str:
    """Say which rows are of which state of the tool."""
    counts = Counter(row.get('version', '') for row in rows)
    shown = ', '.join(f'{name} ({count})' for name, count in counts.items())
    return (
        'State of the tool, as a hash of its source, and how many results are '
        f'of it: {shown}.'
    )


def _group(rows: Iterable[Mapping], keys: Sequence[str]) -> dict:
    groups = defaultdict(list)
    for row in rows:
        groups[tuple(row.get(key) or '' for key in keys)].append(row)
    return dict(sorted(groups.items()))


def _counts(runs: Mapping) -> str:
    lines = [
        '| codebase | backbone | configs | passed | refused | unchecked | '
        'failed | failed with any backbone | passed of those that run |',
        '|---|---|---|---|---|---|---|---|---|',
    ]
    for (host, backbone), rows in runs.items():
        found = Counter(row['status'] for row in rows)
        share = f' ({found[PASSED] / max(len(rows), 1):.1%})'
        cells = [host, backbone, len(rows), f'{found[PASSED]}{share}']
        cells += [found[status] for status in STATUSES[1:]]
        anyway = sum(row.get('reason') == SOURCE_FAILS for row in rows)
        rest = max(len(rows) - anyway - found[UNCHECKED], 1)
        cells += [anyway, f'{found[PASSED] / rest:.1%}']
        lines.append(f'| {" | ".join(map(str, cells))} |')
    return '\n'.join(lines)


def _reasons(rows: Sequence[Mapping]) -> str:
    lines = [
        '| codebase | backbone | status | reason | configs |',
        '|---|---|---|---|---|',
    ]
    groups = _group(rows, ('host', 'backbone', 'status', 'reason'))
    for (*names, reason), found in groups.items():
        if reason:
            lines.append(f'| {" | ".join(names)} | {reason} | {len(found)} |')
    return '\n'.join(lines)


def _algorithms(rows: Sequence[Mapping]) -> str:
    lines = [
        '| codebase | algorithm | backbone | passed | refused | unchecked | '
        'failed |',
        '|---|---|---|---|---|---|---|',
    ]
    for names, found in _group(
        rows, ('host', 'algorithm', 'backbone')
    ).items():
        counts = Counter(row['status'] for row in found)
        cells = [*names, *(counts[status] or '' for status in STATUSES)]
        lines.append(f'| {" | ".join(map(str, cells))} |')
    return '\n'.join(lines)


def _failures(rows: Sequence[Mapping]) -> str:
    failed = [row for row in rows if row['status'] == FAILED]
    if not failed:
        return 'Nothing.'
    return '\n'.join(
        f'- `{row["config"]}`, {row["backbone"]}: {_escape(row["detail"])}'
        for row in failed
    )


def _escape(text: str) -> str:
    return text.replace('<', '&lt;').replace('|', '&#124;')
