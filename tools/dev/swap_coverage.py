"""Swap and check every config that a codebase ships, and count the results.

    python tools/dev/swap_coverage.py mmdet --backbone boat-swin-tiny

Needs the package installed, or `PYTHONPATH=.`. Results are appended to a
journal; if interrupted, rerun it to resume. The page contains all runs in the
journal.
"""

import argparse
import contextlib
import functools
import gc
import hashlib
import importlib
import importlib.util
import json
import os
import random
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from cheap_build import shared_numbers
from coverage_case import run_case
from coverage_page import (
    FAILED,
    PASSED,
    STATUSES,
    UNCHECKED,
    render_page,
)
from forking import Call, run_forked
from mmengine.config import utils as config_utils

from mmattn import swapping
from mmattn.swapping import feature_maps, planning
from mmattn.swapping.source import (
    CODEBASES,
    config_root,
    read_source,
)


class Coverage:
    """Swaps of the configs of one codebase to one backbone.

    Args:
        codebase: The codebase.
        backbone: Name of the new backbone.
        journal: File with one JSON row for each config.
    """

    def __init__(self, codebase: str, backbone: str, journal: Path) -> None:
        self.codebase = codebase
        self.backbone = backbone
        self.journal = journal.absolute()
        self.version = source_version()

    def run(
        self,
        sample: int | None = None,
        seed: int = 0,
        retry: str | None = None,
        timeout: float = 300.0,
        jobs: int = 1,
    ) -> list[dict]:
        """Run the configs that are not in the journal.

        Args:
            sample: Number of configs, drawn at random. Defaults to all.
            seed: Seed of the sample. Defaults to 0.
            retry: Run configs again whose status is this, or ``'changed'``
                for those run by another version. Defaults to None.
            timeout: Time limit of a config in seconds. Defaults to 300.
            jobs: Number of processes. Defaults to 1.

        Returns:
            All rows of these configs, earlier ones included.
        """
        names = list_shipped(self.codebase)
        if sample is not None:
            names = random.Random(seed).sample(names, min(sample, len(names)))
        rows = {
            row['config']: row
            for row in read_journal(self.journal)
            if row['codebase'] == self.codebase
            and row['backbone'] == self.backbone
        }
        todo = [
            name
            for name in names
            if name not in rows or self._is_again(rows[name], retry)
        ]
        known = {}
        for row in rows.values():
            if row['status'] == PASSED and row['version'] == self.version:
                known.update(_results(row))
        if todo:
            preload(self.codebase)
            self._fill_caches(todo)
        counts: Counter = Counter()
        start = time.monotonic()
        calls = self._calls(todo, known)
        for i, (name, row) in enumerate(run_forked(calls, timeout, jobs)):
            rows[name] = self._record(name, row, known)
            counts[row['status']] += 1
            _report(i + 1, len(todo), counts, time.monotonic() - start)
        return [rows[name] for name in names]

    def _fill_caches(self, names: list[str]) -> None:
        """Run each old backbone once; children inherit the results.

        Errors occur again in the child, which reports them.
        """
        print(f'{self.codebase}: running the old backbones', flush=True)
        family = swapping.find_family(self.backbone)
        for name in names:
            with contextlib.suppress(Exception):
                source = read_source(name)
                planning.plan_swap(source.config, source.codebase, family)
        gc.collect()
        gc.freeze()

    def _is_again(self, row: dict, retry: str | None) -> bool:
        if retry == 'changed':
            return row['version'] != self.version
        return row['status'] == retry or (
            retry == FAILED and row['status'] == UNCHECKED
        )

    def _calls(
        self, names: list[str], known: dict[str, dict]
    ) -> Iterator[tuple[str, Call]]:
        """Function of each config; ``known`` grows as they end."""
        for name in names:
            yield (
                name,
                functools.partial(
                    _run_in_folder, self.codebase, name, self.backbone, known
                ),
            )

    def _record(self, name: str, row: dict, known: dict[str, dict]) -> dict:
        row = dict(
            codebase=self.codebase,
            config=name,
            backbone=self.backbone,
            version=self.version,
            **row,
        )
        known.update(_results(row))
        self.journal.parent.mkdir(parents=True, exist_ok=True)
        with open(self.journal, 'a') as file:
            file.write(json.dumps(row) + '\n')
        return row


def list_shipped(codebase: str) -> list[str]:
    """Names of all configs that a codebase ships, except ``_base_``."""
    root = config_root(codebase)
    files = sorted(path.relative_to(root) for path in root.rglob('*.py'))
    return [
        f'{codebase}::{path.as_posix()}'
        for path in files
        if path.parts[0] != '_base_'
    ]


def write_page(journal: Path, path: Path) -> None:
    """Write the page of all runs in a journal."""
    rows = read_journal(journal)
    codebases = {row['codebase'] for row in rows}
    totals = {name: len(list_shipped(name)) for name in codebases}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render_page(rows, totals))


_SHARED = {
    'key': ('status', 'reason', 'detail', 'bugs', 'size'),
    'optimizer_key': (
        'optimizer',
        'optimizer_detail',
        'layer_decay',
        'exempt_biases',
    ),
}


def _results(row: dict) -> dict[str, dict]:
    """The parts of a row that hold for other configs, by their keys."""
    return {
        row[key]: {name: row[name] for name in names if name in row}
        for key, names in _SHARED.items()
        if key in row
    }


def read_journal(path: Path) -> list[dict]:
    """Return the last row of each config and backbone."""
    if not path.is_file():
        return []
    rows: dict[tuple, dict] = {}
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:  # truncated by an interrupt
            continue
        rows[row['config'], row['backbone']] = row
    return list(rows.values())


def source_version() -> str:
    """Short hash of the sources that results depend on."""
    digest = hashlib.sha256()
    files = sorted(Path(swapping.__file__).parent.glob('*.py'))
    files += map(
        Path(__file__).with_name,
        ('coverage_case.py', 'optimizer_check.py', 'upstream_bugs.py'),
    )
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def _run_in_folder(
    codebase: str, name: str, backbone: str, known: dict[str, dict]
) -> dict:
    # Distilled models name the configs of their teachers from here.
    os.chdir(config_root(codebase).parent)
    return run_case(name, backbone, known)


def cache_probes() -> None:
    """Run each backbone and neck only once."""
    for name in ('probe_backbone', 'probe_neck'):
        setattr(planning, name, _cached(getattr(feature_maps, name)))


def _cached(probe: Callable) -> Callable:
    results: dict[str, list] = {}

    def probe_once(*args: Any) -> list:
        key = repr(args)
        if key not in results:
            results[key] = probe(*args)
        return results[key]

    return probe_once


def preload(codebase: str) -> None:
    """Import and read what all configs need."""
    warnings.filterwarnings('ignore')
    torch.set_num_threads(1)
    for name in dict.fromkeys((codebase, 'mmpretrain', 'mmdet')):
        if importlib.util.find_spec(name) is not None:
            importlib.import_module(f'{name}.models')
            importlib.import_module(f'{name}.structures')
    # mmengine reads every metafile of a codebase for each `codebase::`.
    config_utils.load = functools.cache(config_utils.load)
    shared_numbers()
    cache_probes()


def _report(done: int, total: int, counts: Counter, seconds: float) -> None:
    if done % 10 and done < total:
        return
    status = ', '.join(f'{counts[name]} {name}' for name in STATUSES)
    left = timedelta(seconds=round(seconds / done * (total - done)))
    print(f'{done}/{total}: {status}; {left} left', flush=True)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('codebase', choices=CODEBASES)
    parser.add_argument(
        '--backbone',
        default='boat-swin-tiny',
        choices=list(swapping.list_families()),
        metavar='NAME',
        help='new backbone (default: %(default)s)',
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('docs/swap_coverage.md'),
        metavar='FILE',
        help='page of results (default: %(default)s)',
    )
    parser.add_argument(
        '--journal',
        type=Path,
        default=Path('work_dirs/swap_coverage.jsonl'),
        metavar='FILE',
        help='results so far (default: %(default)s)',
    )
    parser.add_argument(
        '--sample', type=int, metavar='N', help='run N random configs only'
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='seed of --sample (default: 0)'
    )
    parser.add_argument(
        '--retry',
        choices=('failed', 'unsupported', 'changed'),
        help='run configs again with this status, or those that another '
        'version of the code ran',
    )
    parser.add_argument(
        '--timeout',
        type=float,
        default=300.0,
        metavar='SECONDS',
        help='time limit of a config (default: %(default)g)',
    )
    parser.add_argument(
        '--jobs',
        type=int,
        default=1,
        metavar='N',
        help='number of processes (default: %(default)s)',
    )
    return parser.parse_args()


def main() -> None:
    """Run the swaps of a codebase and write the page."""
    args = parse_args()
    Coverage(args.codebase, args.backbone, args.journal).run(
        args.sample, args.seed, args.retry, args.timeout, args.jobs
    )
    write_page(args.journal, args.out)
    print(f'wrote {args.out}')


if __name__ == '__main__':
    main()
