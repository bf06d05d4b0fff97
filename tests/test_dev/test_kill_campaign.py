"""The table of killed trainings."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

TOOL = Path(__file__).parents[2] / 'tools' / 'dev' / 'kill_campaign.py'


@pytest.mark.dev
def test_trainings_survive(tmp_path):
    done = subprocess.run(
        [sys.executable, TOOL, '--kills', '2', '--work-dir', tmp_path / 'run'],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    one, two = done.stdout.splitlines()[-2:]
    assert one.startswith('| 1 | 1 | 1 | 0 | 1 |')
    assert two.startswith('| 2 | 1 | 1 | 0 | 1 |')


def test_other_weights_and_missing_files_are_found(tmp_path):
    import kill_campaign as tool

    last = f'epoch_{tool.EPOCHS}.pth'

    def save(folder, **values):
        (tmp_path / folder).mkdir()
        for name, value in values.items():
            state = dict(w=torch.tensor(value))
            name = last if name == 'last' else f'{name}.pth'
            torch.save(dict(state_dict=state), tmp_path / folder / name)
        return tmp_path / folder

    whole = save('whole', last=1.0, best_5=2.0)
    assert tool.are_equal(whole, save('same', last=1.0, best_5=2.0))
    assert not tool.are_equal(whole, save('other', last=1.5, best_5=2.0))
    assert not tool.are_equal(whole, save('best', last=1.0, best_5=2.5))
    assert not tool.are_equal(whole, save('missing', last=1.0))


@pytest.mark.parametrize(
    'saving, iterations, lost',
    [([], [], False), ([1], [], False), ([1, 2], [], True)]
    + [([1, 2], [1], False), ([1, 2, 3], [1], True)],
)
def test_lost_epochs_are_found(tmp_path, saving, iterations, lost):
    import kill_campaign as tool

    training = object.__new__(tool.Training)
    training.folder, training.log = tmp_path, tmp_path / 'log'
    training.log.write_text(
        ''.join(f'Saving checkpoint at {x} epochs\n' for x in saving)
    )
    for x in iterations:
        content = dict(meta=dict(epoch=x, iter=x), state_dict={})
        content |= dict(optimizer={}, message_hub={})
        torch.save(content, tmp_path / f'epoch_{x}.pth')
    assert training.is_lost() == lost
