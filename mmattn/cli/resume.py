"""Find the checkpoint that a training continues from."""

import os
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.runner import Runner

from mmattn.checkpoints.inspection import inspect_checkpoint
from mmattn.checkpoints.loading import find_file
from mmattn.checkpoints.unpickling import InvalidCheckpoint
from mmattn.errors import UsageError

_NEEDED = ('meta', 'state_dict', 'message_hub', 'optimizer')


class Resumable(NamedTuple):
    """A checkpoint to continue from."""

    path: Path
    epoch: int
    iter: int
    seed: int | None


def set_resume(cfg: Config, path: str, start_if_none: bool) -> None:
    """Let a config continue a training.

    Sets ``resume``, ``load_from`` and, as in the checkpoint, the seed.

    Args:
        cfg: The config, changed in place; ``work_dir`` is set.
        path: A checkpoint, or ``'auto'`` for the newest one that can be read
            in the folders of the run.
        start_if_none: Start a new training if there is no checkpoint.

    Raises:
        UsageError: If there is no checkpoint to continue from.
    """
    if path == 'auto':
        found = find_newest(_folders(cfg), start_if_none)
    else:
        found = _read(path)
    if found is None:
        cfg.resume, cfg.load_from = False, None
        return
    cfg.resume, cfg.load_from = True, str(found.path)
    if found.seed is not None:
        cfg.randomness = dict(cfg.get('randomness') or {}, seed=found.seed)


def find_newest(
    folders: list[Path], start_if_none: bool = False
) -> Resumable | None:
    """Find the newest checkpoint that can be read, and print the choice.

    Args:
        folders: Where to look.
        start_if_none: Return None if there is none.

    Raises:
        UsageError: If there is none.
    """
    candidates, skipped = [], {}
    files = (x for folder in folders for x in folder.glob('*.pth'))
    for path in sorted(filter(Path.is_file, files)):
        try:
            content = inspect_checkpoint(path, with_checksums=False)
            candidates.append(_resumable(path, content))
        except InvalidCheckpoint as error:
            skipped[path] = error.what
        except _NotResumable:
            continue  # the best checkpoint, for example
    candidates.sort(key=lambda found: (found.iter, found.epoch))
    chosen = None
    while candidates and chosen is None:
        newest = candidates.pop()
        try:
            inspect_checkpoint(newest.path)
            chosen = newest
        except InvalidCheckpoint as error:
            skipped[newest.path] = error.what
    places = ' and '.join(map(str, folders))
    reasons = '; '.join(f'{x.name} {what}' for x, what in skipped.items())
    reasons = f' (skipped: {reasons})' if skipped else ''
    if chosen is None and not start_if_none:
        raise UsageError(
            f'no checkpoint to resume from in {places}{reasons}; remove '
            '--resume to start a new training, or add --start-if-none'
        )
    if int(os.environ.get('LOCAL_RANK', 0)) == 0:
        print(
            f'No checkpoint in {places}{reasons}: starting a new training'
            if chosen is None
            else f'Resuming from {chosen.path} (epoch {chosen.epoch}, '
            f'iteration {chosen.iter}), the newest complete checkpoint of '
            f'{len(candidates) + 1}{reasons}',
            flush=True,
        )
    return chosen


def report_resume_errors(runner: Runner) -> None:
    """Make a runner report in one line why it cannot resume."""
    resume = runner.resume

    def checked(filename: str, *args: Any, **kwargs: Any) -> None:
        try:
            resume(filename, *args, **kwargs)
        except UsageError:
            raise
        except Exception as error:  # the content of the file can be anything
            raise UsageError(
                f'cannot resume from {filename}, which does not belong to '
                f'this config: {type(error).__name__}: {str(error)[:300]}'
            ) from error

    runner.resume = checked


class _NotResumable(Exception):
    """A readable checkpoint that a training cannot continue from."""


def _read(path: str) -> Resumable:
    try:
        file = find_file(path)
        return _resumable(file, inspect_checkpoint(file))
    except InvalidCheckpoint as error:
        raise UsageError(f'checkpoint {path} {error}') from error
    except (_NotResumable, OSError, ValueError) as error:
        raise UsageError(str(error)) from error


def _resumable(path: Path, content: Any) -> Resumable:
    content = content if isinstance(content, dict) else {}
    missing = [x for x in _NEEDED if not isinstance(content.get(x), dict)]
    meta = content['meta'] if 'meta' not in missing else {}
    if not missing:
        missing = [
            f'meta.{name}'
            for name in ('epoch', 'iter')
            if type(meta.get(name)) is not int
        ]
    if missing:
        raise _NotResumable(
            f'{path} has no {" and no ".join(missing)}, so a training cannot '
            'continue from it; use --load-from to start a new training with '
            'its weights'
        )
    seed = meta.get('seed')
    return Resumable(
        path, meta['epoch'], meta['iter'], seed if type(seed) is int else None
    )


def _folders(cfg: Config) -> list[Path]:
    folders = [Path(cfg.work_dir)]
    hooks = (cfg.get('default_hooks') or {}).values()
    for hook in (*hooks, *(cfg.get('custom_hooks') or ())):
        out_dir = isinstance(hook, dict) and hook.get('out_dir')
        if out_dir and '://' not in str(out_dir):
            folders.append(Path(str(out_dir), folders[0].name))
    return list(dict.fromkeys(folders))
