"""Try a swap on every config that a codebase ships."""

import contextlib
import functools
import gc
import hashlib
import importlib
import json
import os
import random
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import torch
from mmengine.config import utils as config_utils

from mmattn.stack import is_importable

from .cheap_build import random_bank
from .coverage_page import FAILED, PASSED, STATUSES, UNCHECKED, render_page
from .families import find_family
from .forking import Call, run_forked
from .planning import plan_swap
from .source import config_root, list_shipped, read_source
from .trial import try_swap


class Coverage:
    """A run over the configs of one codebase, with one backbone.

    Every result is appended to a journal as it comes, so that a run that was
    stopped goes on where it was. One journal holds any number of runs.

    Args:
        host: The codebase.
        backbone: Name of the new backbone.
        journal: File of one json row for each config.
    """

    def __init__(self, host: str, backbone: str, journal: Path) -> None:
        self.host = host
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
        """Try the configs that the journal has no result of.

        Args:
            sample: How many configs, chosen by ``seed``. Defaults to all.
            seed: Chooses the sample. Defaults to 0.
            retry: ``'failed'``, ``'refused'`` or ``'changed'`` (by another
                version of this package): try these again. Defaults to None.
            timeout: For each config, in seconds. Defaults to 300.
            jobs: How many are tried at a time. Defaults to 1.

        Returns:
            The rows of the configs of this run, the earlier ones too.
        """
        names = list_shipped(self.host)
        if sample is not None:
            names = random.Random(seed).sample(names, min(sample, len(names)))
        rows = {
            row['config']: row
            for row in read_journal(self.journal)
            if row['host'] == self.host and row['backbone'] == self.backbone
        }
        todo = [
            name
            for name in names
            if name not in rows or self._is_again(rows[name], retry)
        ]
        known = {
            row['key']: _result(row)
            for row in rows.values()
            if row['status'] == PASSED and row['version'] == self.version
        }
        if todo:
            _preload(self.host)
            self._plan_ahead(todo)
        counts: Counter = Counter()
        start = time.monotonic()
        calls = self._calls(todo, known)
        for i, (name, row) in enumerate(run_forked(calls, timeout, jobs)):
            rows[name] = self._note(name, row, known)
            counts[row['status']] += 1
            _say(i + 1, len(todo), counts, time.monotonic() - start)
        return [rows[name] for name in names]

    def write_page(self, path: Path) -> str:
        """Write the page of all runs in the journal; return what to say."""
        rows = read_journal(self.journal)
        hosts = {row['host'] for row in rows}
        totals = {host: len(list_shipped(host)) for host in hosts}
        text = render_page(rows, totals)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return f'wrote     {path}'

    def _plan_ahead(self, names: list[str]) -> None:
        """Plan here once, so that old backbones are run once, not often.

        The processes of the configs find the maps in the caches that they
        inherit. What goes wrong goes wrong there again, and is told there.
        """
        print(f'{self.host}: running the old backbones', flush=True)
        family = find_family(self.backbone)
        for name in names:
            with contextlib.suppress(Exception):
                source = read_source(name)
                plan_swap(source.config, source.host, family)
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
        """What to run for each config; ``known`` grows meanwhile."""
        for name in names:
            yield (
                name,
                functools.partial(
                    _from_folder, self.host, name, self.backbone, known
                ),
            )

    def _note(self, name: str, row: dict, known: dict[str, dict]) -> dict:
        """Append a row to the journal, and its result to what is known."""
        row = dict(
            host=self.host,
            config=name,
            backbone=self.backbone,
            version=self.version,
            **row,
        )
        if 'key' in row and not row.get('shared'):
            known[row['key']] = _result(row)
        self.journal.parent.mkdir(parents=True, exist_ok=True)
        with open(self.journal, 'a') as file:
            file.write(json.dumps(row) + '\n')
        return row


def _result(row: dict) -> dict:
    """What another config with the same model takes over."""
    keys = ('status', 'reason', 'detail', 'mended', 'size')
    return {key: row[key] for key in keys if key in row}


def read_journal(path: Path) -> list[dict]:
    """Rows of a journal, the last one of each config and backbone."""
    if not path.is_file():
        return []
    rows: dict[tuple, dict] = {}
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:  # cut short when the run was stopped
            continue
        rows[row['config'], row['backbone']] = row
    return list(rows.values())


def source_version() -> str:
    """First digits of a hash of this package: results are of one version."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob('*.py')):
        if 'coverage' not in path.name:  # they say nothing of a result
            digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def _from_folder(
    host: str, name: str, backbone: str, known: dict[str, dict]
) -> dict:
    # Configs of distilled models name their teachers' from here.
    os.chdir(config_root(host).parent)
    return try_swap(name, backbone, known)


def _preload(host: str) -> None:
    """Import and read once what every config needs."""
    warnings.filterwarnings('ignore')
    torch.set_num_threads(1)
    for name in dict.fromkeys((host, 'mmpretrain', 'mmdet')):
        if is_importable(name):
            importlib.import_module(f'{name}.models')
            importlib.import_module(f'{name}.structures')
    # mmengine reads every metafile of a codebase for each `host::`.
    config_utils.load = functools.cache(config_utils.load)
    random_bank()


def _say(done: int, total: int, counts: Counter, seconds: float) -> None:
    left = timedelta(seconds=round(seconds / done * (total - done)))
    status = ', '.join(f'{counts[name]} {name}' for name in STATUSES)
    end = '\n' if done == total or not sys.stdout.isatty() else '\r'
    if end == '\r' or done % 10 == 0 or done == total:
        print(
            f'{done}/{total}: {status}; {left} left',
            end=end,
            flush=True,
        )
