"""A training that dies at any moment leaves a complete checkpoint."""

import errno
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import CheckpointHook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmattn.cli.resume import find_newest
from mmattn.engine import atomic_checkpoints
from mmattn.engine.atomic_checkpoints import (
    make_checkpoints_atomic,
    report_full_disk,
    write_atomically,
)
from mmattn.errors import UsageError


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def forward(self, x, mode='loss'):
        loss = self.layer(x).square().mean()
        return dict(loss=loss) if mode == 'loss' else [loss]


class Score(BaseMetric):
    """Gets better until epoch 3, and again in epoch 5."""

    default_prefix = None
    scores = itertools.cycle([1.0, 2.0, 3.0, 0.0, 4.0])

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return dict(acc=next(self.scores))


class Mine(CheckpointHook):
    """A hook of a user, who counts what is saved."""

    saved = 0

    def _save_checkpoint_with_step(self, runner, step, meta):
        self.saved += 1
        super()._save_checkpoint_with_step(runner, step, meta)


def build(work_dir, hook=CheckpointHook, epochs=5, launcher='none', **options):
    Score.scores = itertools.cycle([1.0, 2.0, 3.0, 0.0, 4.0])
    model = Model()
    loader = DataLoader([dict(x=x) for x in torch.randn(2, 4)])
    options = dict(interval=1, max_keep_ckpts=1) | options
    runner = Runner(
        model,
        str(work_dir),
        train_dataloader=loader,
        val_dataloader=loader,
        val_cfg=dict(),
        val_evaluator=Evaluator(Score()),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=OptimWrapper(torch.optim.SGD(model.parameters(), 0.1)),
        default_hooks=dict(checkpoint=dict(type=hook, **options), logger=None),
        cfg=dict(
            model_wrapper_cfg=dict(
                type='MMDistributedDataParallel', device_ids=None
            )
        ),
        log_level='ERROR',
        launcher=launcher,
        experiment_name=str(work_dir).replace('/', '-'),
    )
    make_checkpoints_atomic(runner)
    return runner


def names(folder):
    return sorted(path.name for path in Path(folder).glob('*.pth'))


def last_checkpoint(folder):
    return Path((folder / 'last_checkpoint').read_text())


@pytest.mark.parametrize('hook', [CheckpointHook, Mine])
def test_the_same_files_as_without(tmp_path, hook):
    build(tmp_path, hook, save_best='acc').train()
    assert names(tmp_path) == ['best_acc_epoch_5.pth', 'epoch_5.pth']
    assert last_checkpoint(tmp_path) == tmp_path / 'epoch_5.pth'
    assert not list(tmp_path.glob('.*.part'))
    for name in names(tmp_path):
        torch.load(tmp_path / name, weights_only=False)


@pytest.mark.parametrize(
    'hook, save_best', [(CheckpointHook, None), (Mine, 'acc')]
)
def test_a_kill_at_any_moment(tmp_path, monkeypatch, hook, save_best):
    """Die before each call that changes the disk, one after another."""
    calls = itertools.count()

    def count(module, name, die_at):
        function = getattr(module, name)

        def counted(*args, **kwargs):
            if next(calls) == die_at[0]:
                os._exit(9)
            return function(*args, **kwargs)

        monkeypatch.setattr(module, name, counted)

    die_at = [-1]
    for name in ('replace', 'remove', 'fsync', 'unlink'):
        count(os, name, die_at)
    build(tmp_path / 'whole', hook, 3, save_best=save_best).train()
    total = next(calls)
    assert total > 12
    for moment in range(total):
        folder = tmp_path / str(moment)
        child = os.fork()
        if child == 0:
            try:
                calls, die_at[0] = itertools.count(), moment
                build(folder, hook, 3, save_best=save_best).train()
            finally:
                os._exit(1)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status == 9, moment
        complete = names(folder)
        found = find_newest([folder], start_if_none=True)
        assert (found is not None) == any('best' not in x for x in complete)
        if (folder / 'last_checkpoint').exists():
            assert last_checkpoint(folder) == found.path or (
                # Killed between the new file and the pointer to it.
                last_checkpoint(folder).is_file()
            )
        # Only the first checkpoint may still be missing.
        assert found is not None or moment < 4
        for name in complete:
            torch.load(folder / name, weights_only=False)


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    runner = build(tmp_path, save_best='acc')
    fsync = os.fsync

    def full(number):
        pointer = tmp_path / 'last_checkpoint'
        if pointer.exists() and 'epoch_2' in pointer.read_text():
            raise OSError(errno.ENOSPC, 'No space left on device', 'x.pth')
        fsync(number)

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(UsageError, match=r'x\.pth is full.*epoch_2\.pth'):
        with report_full_disk(str(tmp_path)):
            runner.train()
    monkeypatch.setattr(os, 'fsync', fsync)
    assert {'best_acc_epoch_1.pth', 'epoch_2.pth'} <= set(names(tmp_path))
    assert find_newest([tmp_path]).epoch == 2
    assert last_checkpoint(tmp_path) == tmp_path / 'epoch_2.pth'


def test_other_errors_are_not_about_the_disk(tmp_path):
    with pytest.raises(FileNotFoundError):
        with report_full_disk(str(tmp_path)):
            open(tmp_path / 'missing')


def test_remains_of_a_killed_run_are_removed(tmp_path):
    (tmp_path / '.epoch_9.pth.part').write_bytes(b'half')
    build(tmp_path, epochs=1).train()
    assert not list(tmp_path.glob('.*.part'))


def test_a_failed_write_leaves_the_file(tmp_path, monkeypatch):
    path = tmp_path / 'a' / 'b.txt'
    write_atomically(path, b'old')
    monkeypatch.setattr(atomic_checkpoints.os, 'replace', lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_atomically(path, b'new')
    assert path.read_bytes() == b'old'
    assert [x.name for x in path.parent.iterdir()] == ['b.txt']


def train_and_watch(folder):
    """Train in one of two processes, and write what changes the files."""
    torch.distributed.init_process_group('gloo')
    rank = torch.distributed.get_rank()
    folder = Path(folder)

    def watch(name):
        function = getattr(os, name)

        def watched(path, *args, **kwargs):
            result = function(path, *args, **kwargs)
            last = folder / 'last_checkpoint'
            event = dict(
                rank=rank,
                name=name,
                path=os.path.basename(args[0] if args else path),
                files=names(folder),
                last=last.exists() and os.path.basename(last.read_text()),
            )
            with open(folder.with_suffix('.jsonl'), 'a') as file:
                file.write(json.dumps(event) + '\n')
            return result

        setattr(os, name, watched)

    for name in ('replace', 'remove'):
        watch(name)
    build(folder, Mine, launcher='pytorch', save_best='acc').train()


def test_two_processes_remove_after_writing(tmp_path):
    folder = tmp_path / 'run'
    subprocess.run(
        [
            *(sys.executable, '-m', 'torch.distributed.run'),
            *('--nproc_per_node=2', '--standalone', __file__, folder),
        ],
        check=True,
        capture_output=True,
        timeout=200,
    )
    assert names(folder) == ['best_acc_epoch_5.pth', 'epoch_5.pth']
    log = folder.with_suffix('.jsonl').read_text()
    events = [json.loads(line) for line in log.splitlines()]
    assert {event['rank'] for event in events} == {0}
    written = [x['path'] for x in events if x['name'] == 'replace']
    removed = [x['path'] for x in events if x['name'] == 'remove']
    assert {f'epoch_{n}.pth' for n in range(1, 6)} <= {*written}
    # Four of the epochs, and three of the best.
    assert len(removed) == len({*removed}) == 7
    for event in events:
        if event['name'] == 'remove':
            kind = 'best' if 'best' in event['path'] else 'epoch'
            assert any(x.startswith(kind) for x in event['files'])
        if event['last']:
            assert event['last'] in event['files']
    assert events[-1]['last'] == 'epoch_5.pth'


if __name__ == '__main__':
    train_and_watch(sys.argv[1])
