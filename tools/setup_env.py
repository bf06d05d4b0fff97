"""Make the environment that all clones share, where missing or stale.

Prints the path of its python; messages go to stderr. Called by
``setup_env.sh``, which finds an interpreter; needs the standard library only.
With ``--if-ready`` it makes nothing and fails where something is to do.

The environment is made in steps. Each leaves a stamp that holds a hash of its
pins; before it runs again, its stamp and those of all later steps are removed.
So an interrupted set-up goes on where it stopped, a changed pin repeats its
step and what follows, and nothing half-made counts as ready.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

from setup_env_steps import (
    HEARTBEAT,
    STEPS,
    Environment,
    SetupError,
    Step,
    duration,
    read_pins,
    say,
)

DEFAULT_FOLDER = '~/.cache/mmattn/env'
NEEDED_DISK = 10  # GB; torch with its CUDA libraries takes most of it


def main() -> int:
    if unknown := set(sys.argv[1:]) - {'--if-ready'}:
        print(__doc__, file=sys.stderr)
        return 0 if unknown <= {'-h', '--help'} else 2
    env = Environment(
        Path(os.environ.get('MMATTN_ENV') or DEFAULT_FOLDER)
        .expanduser()
        .absolute()
    )
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        if pending(env):
            if '--if-ready' in sys.argv[1:]:
                return 1
            claim(env)
            with lock(env):
                make(env)
    except SetupError as error:
        print(f'mmattn: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        say('interrupted; the same command goes on from here')
        return 130
    print(env.python)
    return 0


def pending(env: Environment) -> list[Step]:
    """The steps from the first whose stamp is missing or out of date."""
    stamps = read_stamps(env)
    version = python_version(env)
    for number, step in enumerate(STEPS):
        if stamps.get(step.name) != make_stamp(step, version):
            return list(STEPS[number:])
    return []


def make_stamp(step: Step, version: str) -> str:
    text = '\n'.join([version, *read_pins(step.name)])
    return hashlib.sha256(text.encode()).hexdigest()


def python_version(env: Environment) -> str:
    """Version of the environment's python, empty where it does not run.

    A distribution that moves from one Python to the next leaves behind
    environments whose python runs, as another version: the hash sees it.
    """
    command = [
        str(env.python),
        '-c',
        'import sys; print(sys.version_info[:2])',
    ]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return ''


def read_stamps(env: Environment) -> dict[str, str]:
    try:
        return json.loads(env.stamps.read_text())
    except (OSError, ValueError):
        return {}


def write_stamps(env: Environment, stamps: dict[str, str]) -> None:
    temporary = env.stamps.with_suffix('.new')
    temporary.write_text(json.dumps(stamps, indent=1))
    temporary.replace(env.stamps)


def make(env: Environment) -> None:
    """Run the pending steps. The caller holds the lock."""
    steps = pending(env)
    if not steps:  # another process made it while this one waited
        return
    if any(step.name == 'mmcv' for step in steps):
        check_machine(env)
    say(f'{env.root}: {len(steps)} of {len(STEPS)} steps to do')
    started = time.monotonic()
    todo = [step.name for step in steps]
    stamps = {k: v for k, v in read_stamps(env).items() if k not in todo}
    write_stamps(env, stamps)
    for step in steps:
        say(f'{step.name}: {step.says}')
        step.run(env)
        stamps[step.name] = make_stamp(step, python_version(env))
        write_stamps(env, stamps)
    say(f'ready after {duration(time.monotonic() - started)}')


def claim(env: Environment) -> None:
    """Make the folder ours, or refuse one that holds other things."""
    try:
        env.root.mkdir(parents=True, exist_ok=True)
        if any(env.root.iterdir()) and not env.state.is_dir():
            raise SetupError(
                'MMATTN_ENV expects a folder that is new, empty or made by '
                f'this command, got {env.root} with other content; name '
                'another folder'
            )
        env.state.mkdir(exist_ok=True)
    except OSError as error:
        raise SetupError(
            f'cannot write to {env.root} ({error.strerror}); set MMATTN_ENV '
            'to a folder that can be written'
        ) from error


@contextlib.contextmanager
def lock(env: Environment) -> Iterator[None]:
    """Hold the environment's lock until the block or the process ends.

    Commands inherit it, so what a killed set-up leaves running is waited for.
    """
    with (env.state / 'lock').open('a+') as stream:
        waited = 0
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if waited % HEARTBEAT == 0:
                    stream.seek(0)
                    holder = stream.read().strip() or 'unknown'
                    say(
                        f'process {holder} is setting up {env.root}; waiting '
                        f'for it ({duration(waited)} so far)'
                    )
                time.sleep(1)
                waited += 1
        os.set_inheritable(stream.fileno(), True)
        stream.truncate(0)
        stream.write(f'{os.getpid()}\n')
        stream.flush()
        yield


def check_machine(env: Environment) -> None:
    """Report everything missing at once, before minutes of downloads.

    Raises:
        SetupError: If Python lacks venv or its headers, if there is no C++
            compiler, or if the disk is too full.
    """
    version = f'python{sys.version_info[0]}.{sys.version_info[1]}'
    missing = []
    if not all(map(importlib.util.find_spec, ('venv', 'ensurepip'))):
        missing.append(f'the venv module of {sys.executable} ({version}-venv)')
    if not Path(sysconfig.get_path('include'), 'Python.h').is_file():
        missing.append(f'Python.h of {sys.executable} ({version}-dev)')
    if not shutil.which(os.environ.get('CXX') or 'g++'):
        missing.append('a C++ compiler (g++)')
    if missing:
        raise SetupError(
            f'expects {", ".join(missing)}, got none; install what stands in '
            'brackets, on Debian and Ubuntu with sudo apt-get install'
        )
    free = shutil.disk_usage(env.root).free / 1e9
    if 'torch' not in read_stamps(env) and free < NEEDED_DISK:
        raise SetupError(
            f'expects {NEEDED_DISK} GB of free disk for {env.root}, got '
            f'{free:.1f} GB; free some, or set MMATTN_ENV to a folder on a '
            'larger disk'
        )


if __name__ == '__main__':
    sys.exit(main())
