"""The page of results of coverage runs."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from mmattn.stack import find_installed

from .host_mistakes import MISTAKES

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
  and a prediction. Images of 64 x 96, larger ones for detectors that go on
  to coarser maps; few proposals, queries, points and classes; weights not
  initialised. Language models, and operations that mmcv has for GPUs only,
  are stood in for. Of configs whose models are the same then, one is run:
  {distinct}.
- **mended**: of these, configs that do not run as they ship, with any
  backbone: the check met a known mistake of the codebase, mended it in its
  own process, and went on. Such a config, swapped or not, runs for a user
  once the codebase is mended as well. The mistakes are named below.
- **refused**: no swap that makes sense, with the reason; nothing is written.
- **unchecked**: written, but something that the model needs, with any
  backbone, is not on this machine.
- **failed**: written, and the model does not build or run. "With any
  backbone": the config as it ships fails the same check, through a mistake of
  the codebase that is not mended here or through samples that do not suit it
  (SSD with PISA wants images of one size).
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

_MISTAKES = """
## Mistakes of the codebases that were mended

For the check alone, when it met them; lines are of the versions above.

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
        _MISTAKES,
        _mended(rows),
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
        '| codebase | backbone | configs | passed | of these, mended | '
        'passed as they ship | refused | unchecked | failed | failed with any '
        'backbone |',
        '|---|---|---|---|---|---|---|---|---|---|',
    ]
    for (host, backbone), rows in runs.items():
        found = Counter(row['status'] for row in rows)
        mended = sum(bool(row.get('mended')) for row in rows)
        cells = [host, backbone, len(rows), _share(found[PASSED], len(rows))]
        cells += [mended, _share(found[PASSED] - mended, len(rows))]
        cells += [found[status] for status in STATUSES[1:]]
        cells.append(sum(row.get('reason') == SOURCE_FAILS for row in rows))
        lines.append(f'| {" | ".join(map(str, cells))} |')
    return '\n'.join(lines)


def _share(part: int, whole: int) -> str:
    return f'{part} ({part / max(whole, 1):.1%})'


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


def _mended(rows: Sequence[Mapping]) -> str:
    lines = [
        '| codebase | mistake | configs by backbone | where, and how mended |',
        '|---|---|---|---|',
    ]
    for mistake in MISTAKES:
        counts = Counter(
            row['backbone']
            for row in rows
            if row['host'] == mistake.host
            and mistake.name in (row.get('mended') or ())
        )
        met = ', '.join(f'{name}: {n}' for name, n in sorted(counts.items()))
        cells = [mistake.host, mistake.name, met or 'none', mistake.what]
        lines.append(f'| {" | ".join(cells)} |')
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
