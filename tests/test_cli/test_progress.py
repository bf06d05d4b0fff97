from types import SimpleNamespace

import pytest

from mmattn.cli import progress
from mmattn.cli.progress import ProgressReport, format_time


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(time=100.0)
    monkeypatch.setattr(progress.time, 'monotonic', lambda: now.time)
    return now


def test_tells_time_left_now_and_then(clock):
    lines = []
    hook = ProgressReport(lines.append, {'coco/bbox_mAP': 'box mAP'})
    runner = SimpleNamespace(iter=0, max_iters=40, epoch=0, max_epochs=2)
    hook.before_train(runner)
    for runner.iter in range(40):
        clock.time += 2
        runner.epoch = runner.iter // 20
        hook.after_train_iter(runner, 0, outputs=dict(loss=0.5))
    assert len(lines) == 8  # every 10 s of 80
    assert lines[0] == '  epoch 1/2  step 5/40  loss 0.500  about 1:10 left'
    assert lines[-1].endswith('step 40/40  loss 0.500  about 0:00 left')


def test_tells_metrics(clock):
    lines = []
    hook = ProgressReport(lines.append, {'coco/bbox_mAP': 'box mAP'})
    runner = SimpleNamespace(epoch=2, max_epochs=8)
    hook.after_val_epoch(runner, {'coco/bbox_mAP': 0.41, 'data_time': 3.0})
    assert lines == ['  epoch 2/8  box mAP 0.410']


def test_format_time():
    assert format_time(59.6) == '1:00'
    assert format_time(125) == '2:05'
