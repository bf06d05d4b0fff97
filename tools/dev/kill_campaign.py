"""Kill trainings at random and check that nothing is lost.

    python tools/dev/kill_campaign.py [--kills 40] [--seed 0]

A nano classifier trains on a few digit scenes with tools/train.py: half of
the kills hit a single process, the others the launcher or one of two
processes. Every epoch writes the last checkpoint, often the best one, too,
and removes the ones before. A killed training is resumed until it is complete.
Prints a Markdown table; the exit status is 1 if a training was lost or ended
with other weights than an uninterrupted one.
"""

import argparse
import contextlib
import io
import os
import random
import re
import shutil
import subprocess
import sys
import time
from dataclasses import astuple, dataclass
from pathlib import Path

import torch

from mmattn.cli.resume import find_newest
from mmattn.datasets import DigitSceneSpec, make_digit_folder

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / 'configs/boat_swin/boat-swin-nano_1xb32-25e_digits.py'
EPOCHS = 20
OPTIONS = (
    f'train_cfg.max_epochs={EPOCHS}',
    'train_cfg.val_interval=1',
    'train_dataloader.batch_size=8',
    'train_dataloader.num_workers=1',
    'train_dataloader.dataset.indices=32',
    'val_dataloader.dataset.indices=32',
)
STARTED = 'Checkpoints will be saved'
MOST_SECONDS = 600


@dataclass
class Row:
    """Outcome of a campaign."""

    processes: int
    kills: int = 0
    trainings: int = 0
    lost: int = 0
    equal: int = 0
    seconds_to_end: float = 0.0

    def __str__(self) -> str:
        *counts, seconds = astuple(self)
        return f'| {" | ".join(map(str, counts))} | {seconds:.1f} |'


class Training:
    """A command that trains in a folder, or continues to."""

    def __init__(self, processes: int, folder: Path) -> None:
        self.folder = folder
        train = [ROOT / 'tools/train.py', CONFIG, '--resume']
        train += ['--start-if-none', '--work-dir', folder]
        train += ['--cfg-options', *OPTIONS]
        if processes > 1:
            launch = ROOT / 'tools/launch_processes.py'
            train = [launch, processes, *train, '--launcher', 'pytorch']
        self.log = folder.with_suffix('.log')
        with open(self.log, 'w') as log:
            self.process = subprocess.Popen(
                [sys.executable, *map(str, train)],
                cwd=folder.parent,
                env=os.environ | {'OMP_NUM_THREADS': '1'},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        end = time.monotonic() + MOST_SECONDS
        while STARTED not in self.log.read_text():
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f'{folder} did not start, see {self.log}')
            time.sleep(0.01)

    def has_ended(self, seconds: float) -> bool:
        """Wait for its end, but not longer."""
        try:
            if self.process.wait(seconds) != 0:
                raise RuntimeError(f'{self.folder} failed, see {self.log}')
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self, rng: random.Random) -> float:
        """Kill a process; return how many seconds later all have ended."""
        targets = [self.process.pid]
        if '--launcher' in self.process.args:
            children = Path(f'/proc/{targets[0]}/task/{targets[0]}/children')
            targets += map(int, children.read_text().split())
        subprocess.run(['kill', '-KILL', str(rng.choice(targets))])
        start = time.monotonic()
        self.process.wait()
        while self.is_running():
            time.sleep(0.05)
        return time.monotonic() - start

    def is_running(self) -> bool:
        """Whether one of its processes is left, a data loader for example."""
        for command in Path('/proc').glob('[0-9]*/cmdline'):
            with contextlib.suppress(OSError):
                if str(self.folder) in command.read_text().split('\0'):
                    return True
        return False

    def is_lost(self) -> bool:
        """Whether an epoch that had been saved is there no more."""
        steps = re.findall(r'Saving checkpoint at (\d+)', self.log.read_text())
        with contextlib.redirect_stdout(io.StringIO()):
            found = find_newest([self.folder], start_if_none=True)
        # The last one may not have been written yet.
        saved = int(steps[-1]) - 1 if steps else 0
        return saved > 0 and (found is None or found.epoch < saved)


def run_campaign(processes: int, kills: int, seed: int, root: Path) -> Row:
    """Kill trainings until there were so many kills."""
    rng = random.Random(f'{seed} {processes}')
    whole = root / f'{processes}-whole'
    training, start = Training(processes, whole), time.monotonic()
    training.has_ended(MOST_SECONDS)
    length = time.monotonic() - start
    row = Row(processes)
    while row.kills < kills:
        row.trainings += 1
        folder = root / f'{processes}-{row.trainings}'
        while True:
            training = Training(processes, folder)
            is_last = row.kills == kills
            wait = MOST_SECONDS if is_last else rng.uniform(0, length / 3)
            if training.has_ended(wait):
                row.equal += are_equal(whole, folder)
                break
            row.seconds_to_end = max(row.seconds_to_end, training.kill(rng))
            row.kills += 1
            print(f'{row} {folder.name}', flush=True)
            if training.is_lost():
                row.lost += 1
                break
    return row


def are_equal(first: Path, second: Path) -> bool:
    """Whether last and best checkpoints of two trainings are the same."""
    files = [f'epoch_{EPOCHS}.pth', *(x.name for x in first.glob('best_*'))]
    for name in files:
        if not (second / name).exists():
            return False
        a, b = (
            torch.load(folder / name, weights_only=False)['state_dict']
            for folder in (first, second)
        )
        if not all(torch.equal(a[key], b[key]) for key in a):
            return False
    return True


def main() -> int:
    """Run both campaigns and print their table."""
    parser = argparse.ArgumentParser(description='Kill trainings at random.')
    parser.add_argument('--kills', type=int, default=40)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/kill_campaign')
    )
    args = parser.parse_args()
    root = args.work_dir.absolute()
    shutil.rmtree(root, ignore_errors=True)
    spec = DigitSceneSpec(num_train=32, num_val=16)
    make_digit_folder(root / 'data' / 'digit_scenes', spec)
    kills = {1: args.kills - args.kills // 2, 2: args.kills // 2}
    rows = [
        run_campaign(processes, count, args.seed, root)
        for processes, count in kills.items()
    ]
    print(
        '| processes | kills | trainings | lost | equal to uninterrupted '
        '| longest time until all processes ended (s) |\n'
        '|---|---|---|---|---|---|'
    )
    print(*rows, sep='\n')
    return int(any(row.lost or row.equal < row.trainings for row in rows))


if __name__ == '__main__':
    sys.exit(main())
