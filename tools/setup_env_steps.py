"""The steps that make the environment, and how a command of theirs is run.

Used by ``setup_env.py``; needs the standard library only.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

REQUIREMENTS = Path(__file__).resolve().parents[1] / 'requirements'
STATE = '.mmattn'  # inside the environment: lock, stamps, logs, wheels
HEARTBEAT = 30  # seconds between two signs of life
LOG_TAIL = 25  # lines of a log shown when its step fails
IMPORTS = (
    'import torch, torchvision, mmcv.ops, mmdet.apis, mmseg.apis, '
    'mmpretrain, pycocotools.mask, sklearn, matplotlib, pytest'
)


class SetupError(Exception):
    """What went wrong and what to do about it, for the user."""


class Environment(NamedTuple):
    """The folder of an environment and the files kept in it."""

    root: Path

    @property
    def python(self) -> Path:
        return self.root / 'bin' / 'python'

    @property
    def state(self) -> Path:
        return self.root / STATE

    @property
    def stamps(self) -> Path:
        return self.state / 'stamps.json'

    def pip(self, *arguments: str) -> list[str]:
        return [str(self.python), '-m', 'pip', *arguments]


class Step(NamedTuple):
    """One step; its pins are in the requirements file of its name."""

    name: str
    says: str
    run: Callable[[Environment], None]


def say(message: str) -> None:
    print(f'[mmattn env] {message}', file=sys.stderr, flush=True)


def read_pins(step: str) -> list[str]:
    """The requirements of a step, without comments; some have none."""
    file = REQUIREMENTS / f'{step}.txt'
    lines = file.read_text().splitlines() if file.exists() else []
    return [line for line in lines if line and not line.startswith('#')]


def run(
    env: Environment,
    name: str,
    command: list[str],
    variables: dict[str, str] | None = None,
) -> None:
    """Run a command into a log, with a sign of life now and then.

    Its temporary files go beside the environment: /tmp may be a small RAM
    disk, and what an interrupted pip leaves there nobody removes.

    Raises:
        SetupError: If it fails; with the end of the log.
    """
    log = env.state / 'logs' / f'{name}.log'
    log.parent.mkdir(exist_ok=True)
    scratch = env.state / 'tmp'
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    started = time.monotonic()
    with log.open('w') as stream:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, 'TMPDIR': str(scratch), **(variables or {})},
            close_fds=False,  # keep the lock
            start_new_session=True,  # so that its children can be ended too
        )
        try:
            while (code := wait(process)) is None:
                passed = duration(time.monotonic() - started)
                say(f'{name}: {passed} so far{progress(log)}')
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()
            shutil.rmtree(scratch, ignore_errors=True)
    if code:
        raise SetupError(failure(env, name, log))


def wait(process: subprocess.Popen) -> int | None:
    try:
        return process.wait(timeout=HEARTBEAT)
    except subprocess.TimeoutExpired:
        return None


def progress(log: Path) -> str:
    """How many files ninja has compiled, where the log tells."""
    text = log.read_text(errors='replace')  # warnings may part the counts
    counts = re.findall(r'^\s*\[(\d+)/(\d+)\]', text, re.MULTILINE)
    return ', {} of {} files compiled'.format(*counts[-1]) if counts else ''


def failure(env: Environment, name: str, log: Path) -> str:
    end = tail(log)
    if 'No space left on device' in end:
        hint = (
            f'the disk of {env.root} or of the pip cache is full; free some, '
            'or set MMATTN_ENV or PIP_CACHE_DIR to a folder on a larger one'
        )
    else:
        hint = 'mend what it says, then run the same command again'
    return (
        f'step {name} failed; {hint}. The last lines of {log}:\n\n{end}\n\n'
        f'(if it fails again: rm -rf {env.root})'
    )


def tail(log: Path) -> str:
    lines = log.read_text(errors='replace').splitlines()
    return '\n'.join(line[:300] for line in lines[-LOG_TAIL:])


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f'{minutes} min {rest} s' if minutes else f'{rest} s'


def make_venv(env: Environment) -> None:
    for entry in env.root.iterdir():
        if entry.name == STATE:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    run(env, 'venv', [sys.executable, '-m', 'venv', str(env.root)])


def install(name: str, *options: str) -> Callable[[Environment], None]:
    """A step that installs a requirements file."""

    def run_pip(env: Environment) -> None:
        file = str(REQUIREMENTS / f'{name}.txt')
        run(env, name, env.pip('install', *options, '-r', file))

    return run_pip


def install_mmcv(env: Environment) -> None:
    """Compile mmcv once for each torch, and keep the wheel.

    pip's own cache tells versions of mmcv apart, but not what it was built
    against: it would hand out a wheel made for another torch.
    """
    use_cuda = find_nvcc() is not None
    folder = env.state / 'wheels' / torch_build(env, use_cuda)
    pin = read_pins('mmcv')[0].replace('-', '_').replace('==', '-')
    if not list(folder.glob(f'{pin}-*.whl')):
        build_mmcv(env, folder, use_cuda)
    (wheel,) = folder.glob(f'{pin}-*.whl')
    options = ('--no-deps', '--force-reinstall', str(wheel))
    run(env, 'mmcv', env.pip('install', *options))


def torch_build(env: Environment, use_cuda: bool) -> str:
    """What a wheel of mmcv depends on, as a name of a folder."""
    code = (
        'import sys, torch; print("torch-{}-cp{}{}-{}".format('
        'torch.__version__, *sys.version_info[:2], '
        f'"cuda" if {use_cuda} and torch.cuda.is_available() else "cpu"))'
    )
    command = [str(env.python), '-c', code]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise SetupError(
            f'the torch of {env.root} does not import:\n{result.stderr}\n'
            f'rm -rf {env.root} and run the same command again'
        )
    return result.stdout.strip()


def build_mmcv(env: Environment, folder: Path, use_cuda: bool) -> None:
    jobs = compile_jobs()
    say(
        f'mmcv: no wheel fits this torch; {jobs} compilers at a time, about '
        '9 minutes on two cores'
    )
    variables = {'MAX_JOBS': str(jobs)}
    if not use_cuda:
        # With a GPU but without nvcc the build would fail.
        variables['CUDA_VISIBLE_DEVICES'] = ''
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as unfinished:
        command = env.pip(
            'wheel',
            '--verbose',
            '--no-deps',
            '--no-cache-dir',
            '--no-build-isolation',
            f'--wheel-dir={unfinished}',
            f'--requirement={REQUIREMENTS / "mmcv.txt"}',
        )
        run(env, 'mmcv', command, variables)
        for wheel in Path(unfinished).glob('*.whl'):
            wheel.replace(folder / wheel.name)


def find_nvcc() -> str | None:
    home = os.environ.get('CUDA_HOME', '/usr/local/cuda')
    return shutil.which('nvcc') or shutil.which('nvcc', path=f'{home}/bin')


def compile_jobs() -> int:
    """As many as there are cores, with about 2 GB of memory for each."""
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2e9
    if hasattr(os, 'sched_getaffinity'):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, min(cores, int(memory)))


def check_imports(env: Environment) -> None:
    run(env, 'check', [str(env.python), '-c', IMPORTS])


STEPS = (
    Step('venv', 'an empty virtual environment', make_venv),
    Step('build', 'pip and build tools', install('build')),
    Step('torch', 'a pair, up to 3 GB to download', install('torch')),
    Step('libraries', 'what the stack needs', install('libraries')),
    Step('mmcv', 'for this torch', install_mmcv),
    Step('stack', 'mmengine and codebases', install('stack', '--no-deps')),
    Step('check', 'import everything once', check_imports),
)
