"""The set-up of the environment, with a pip that installs nothing."""

import fcntl
import importlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / 'tools'
NAMES = ['venv', 'build', 'torch', 'libraries', 'mmcv', 'stack', 'check']

# Stands for every command: `venv` makes a python, `wheel` makes a wheel, all
# leave a line behind. A file named `break-<step>` makes a step fail.
FAKE = """
import pathlib, sys, time
root, name, *command = sys.argv[1:]
root = pathlib.Path(root)
with (root / '.mmattn' / 'ran').open('a') as stream:
    stream.write(name + ' ' + ' '.join(command) + chr(10))
if (root / '.mmattn' / f'break-{name}').exists():
    print('no such luck')
    print((root / '.mmattn' / f'break-{name}').read_text())
    sys.exit(1)
if name == 'venv':
    (root / 'bin').mkdir()
    (root / 'bin' / 'python').symlink_to(sys.executable)
folders = [c.split('=')[1] for c in command if c.startswith('--wheel-dir')]
for folder in folders:
    (pathlib.Path(folder) / 'onedl_mmcv-2.3.6-py3-none-any.whl').touch()
if (root / '.mmattn' / f'linger-{name}').exists():
    time.sleep(60)
"""


@pytest.fixture
def env(tmp_path, monkeypatch):
    monkeypatch.setenv('MMATTN_ENV', str(tmp_path / 'env'))
    return tmp_path / 'env'


@pytest.fixture
def setup_env(monkeypatch, tmp_path):
    """The module, running the stand-in for every command."""
    module = load()
    fake_commands(module, tmp_path / 'fake.py')
    monkeypatch.setattr(module.signal, 'signal', lambda *_: None)
    monkeypatch.setattr(sys, 'argv', ['setup_env.py'])
    return module


def load():
    """The two modules anew; the steps as an attribute of the other."""
    names = ('setup_env_steps', 'setup_env')
    sys.path.insert(0, str(TOOLS))
    try:
        for name in names:
            sys.modules.pop(name, None)
        steps, module = map(importlib.import_module, names)
    finally:
        sys.path.remove(str(TOOLS))
    module.steps = steps
    return module


def fake_commands(module, script):
    script.write_text(FAKE)
    run = module.steps.run

    def run_fake(env, name, command, variables=None):
        stand_in = [sys.executable, str(script), str(env.root), name]
        run(env, name, [*stand_in, *command], variables)

    module.steps.run = run_fake
    module.steps.torch_build = lambda env, use_cuda: 'torch-2.11.0-cpu'
    module.check_machine = lambda env: None


def ran(env):
    """Names of the steps that ran, in order, and forget them."""
    record = env / '.mmattn' / 'ran'
    lines = record.read_text().splitlines() if record.exists() else []
    record.unlink(missing_ok=True)
    return [line.split()[0] for line in lines]


def start(env, script):
    """A set-up in a process of its own, with the stand-in."""
    code = (
        'import sys; sys.path.insert(0, sys.argv.pop(1))\n'
        'import test_setup_env as t; from pathlib import Path\n'
        'module = t.load()\n'
        't.fake_commands(module, Path(sys.argv.pop()))\n'
        # Tests that a shell runs in the background inherit a deaf ear.
        't.signal.signal(t.signal.SIGINT, t.signal.default_int_handler)\n'
        'sys.exit(module.main())'
    )
    return subprocess.Popen(
        [sys.executable, '-c', code, str(Path(__file__).parent)]
        + [str(script)],
        env={**os.environ, 'MMATTN_ENV': str(env)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, 'waited for 20 s'
        time.sleep(0.05)


def test_makes_it_once(setup_env, env, capsys):
    assert setup_env.main() == 0
    # mmcv is built, then installed.
    assert ran(env) == NAMES[:5] + ['mmcv'] + NAMES[5:]
    assert capsys.readouterr().out == f'{env}/bin/python\n'
    assert setup_env.main() == 0
    assert ran(env) == []
    assert capsys.readouterr() == (f'{env}/bin/python\n', '')


@pytest.mark.parametrize(
    'changed, expected',
    [
        # The wheel of mmcv is kept: it is installed again, not built.
        ('libraries', ['libraries', 'mmcv', 'stack', 'check']),
        ('stack', ['stack', 'check']),
    ],
)
def test_a_changed_pin_repeats_its_step_and_what_follows(
    setup_env, env, tmp_path, monkeypatch, changed, expected
):
    setup_env.main()
    ran(env)
    pins = tmp_path / 'requirements'
    pins.mkdir()
    for file in setup_env.steps.REQUIREMENTS.glob('*.txt'):
        (pins / file.name).write_text('# comment\n' + file.read_text())
    monkeypatch.setattr(setup_env.steps, 'REQUIREMENTS', pins)
    setup_env.main()
    assert ran(env) == []  # a comment is no pin
    with (pins / f'{changed}.txt').open('a') as stream:
        stream.write('another==1.0\n')
    setup_env.main()
    assert ran(env) == expected


def test_goes_on_where_a_failure_stopped_it(setup_env, env, capsys):
    obstacle = env / '.mmattn' / 'break-libraries'
    obstacle.parent.mkdir(parents=True)
    obstacle.write_text('')
    assert setup_env.main() == 1
    assert ran(env) == ['venv', 'build', 'torch', 'libraries']
    out, message = capsys.readouterr()
    assert out == ''
    assert 'step libraries failed; mend what it says, then run' in message
    assert f'{env}/.mmattn/logs/libraries.log' in message
    assert 'no such luck' in message
    obstacle.unlink()
    assert setup_env.main() == 0
    assert ran(env) == ['libraries', 'mmcv', 'mmcv', 'stack', 'check']


def test_a_change_taken_back_half_way_is_repeated(
    setup_env, env, tmp_path, monkeypatch
):
    """The environment may hold packages of either pins by then."""
    setup_env.main()
    before = setup_env.steps.REQUIREMENTS
    pins = tmp_path / 'requirements'
    shutil.copytree(before, pins)
    (pins / 'libraries.txt').write_text('another==1.0\n')
    (env / '.mmattn' / 'break-libraries').write_text('')
    monkeypatch.setattr(setup_env.steps, 'REQUIREMENTS', pins)
    assert setup_env.main() == 1
    (env / '.mmattn' / 'break-libraries').unlink()
    ran(env)
    monkeypatch.setattr(setup_env.steps, 'REQUIREMENTS', before)
    assert setup_env.main() == 0
    assert ran(env) == ['libraries', 'mmcv', 'stack', 'check']


def test_a_full_disk_is_named(setup_env, env, capsys):
    obstacle = env / '.mmattn' / 'break-torch'
    obstacle.parent.mkdir(parents=True)
    obstacle.write_text('OSError: [Errno 28] No space left on device')
    assert setup_env.main() == 1
    assert 'or of the pip cache is full; free some' in capsys.readouterr().err


def test_another_python_starts_anew_but_keeps_the_wheels(setup_env, env):
    setup_env.main()
    ran(env)
    (env / 'bin' / 'python').unlink()
    (env / 'left-over').touch()
    assert setup_env.main() == 0
    assert ran(env) == NAMES
    assert not (env / 'left-over').exists()


def test_a_folder_with_other_content_is_left_alone(setup_env, env, capsys):
    env.mkdir()
    (env / 'thesis.tex').touch()
    assert setup_env.main() == 1
    assert 'MMATTN_ENV expects a folder that is new, empty or made by' in (
        capsys.readouterr().err
    )
    assert os.listdir(env) == ['thesis.tex']


def test_the_second_of_two_waits_and_says_so(setup_env, env, tmp_path, capsys):
    env.joinpath('.mmattn').mkdir(parents=True)
    with (env / '.mmattn' / 'lock').open('w') as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.write('4321\n')
        stream.flush()
        process = start(env, tmp_path / 'other.py')
        line = process.stderr.readline()
    _, rest = process.communicate(timeout=60)
    assert f'process 4321 is setting up {env}; waiting for it' in line
    assert process.returncode == 0, rest


def test_two_at_once_make_it_once(env, tmp_path):
    both = [start(env, tmp_path / f'{i}.py') for i in range(2)]
    for process in both:
        out, error = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, f'{env}/bin/python\n'), error
    assert ran(env) == NAMES[:5] + ['mmcv'] + NAMES[5:]


@pytest.mark.parametrize('kind', [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_step_is_no_finished_step(
    setup_env, env, tmp_path, kind
):
    linger = env / '.mmattn' / 'linger-torch'
    linger.parent.mkdir(parents=True)
    linger.touch()
    process = start(env, tmp_path / 'other.py')
    record = env / '.mmattn' / 'ran'
    wait_for(lambda: record.exists() and 'torch' in record.read_text())
    process.send_signal(kind)
    process.communicate(timeout=20)  # its command ends with it
    assert not (env / '.mmattn' / 'tmp').exists()
    assert process.returncode not in (0, 1)
    stamps = json.loads((env / '.mmattn' / 'stamps.json').read_text())
    assert list(stamps) == ['venv', 'build']
    linger.unlink()
    ran(env)
    assert setup_env.main() == 0
    assert ran(env)[0] == 'torch'


def test_what_a_killed_set_up_leaves_running_is_waited_for(
    setup_env, env, tmp_path
):
    linger = env / '.mmattn' / 'linger-torch'
    linger.parent.mkdir(parents=True)
    linger.touch()
    process = start(env, tmp_path / 'other.py')
    record = env / '.mmattn' / 'ran'
    wait_for(lambda: record.exists() and 'torch' in record.read_text())
    found = subprocess.run(
        ['pgrep', '-P', str(process.pid)], capture_output=True, text=True
    )
    process.kill()
    process.wait()
    with (env / '.mmattn' / 'lock').open() as stream:
        with pytest.raises(BlockingIOError):
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.kill(int(found.stdout), signal.SIGTERM)
        fcntl.flock(stream, fcntl.LOCK_EX)  # free as soon as that has ended


def test_a_long_step_gives_signs_of_life(env, tmp_path, monkeypatch, capsys):
    module = load()
    monkeypatch.setattr(module.steps, 'HEARTBEAT', 0.6)
    environment = module.Environment(env)
    module.claim(environment)
    script = tmp_path / 'slow.py'
    script.write_text(
        'import time; print("  [7/131] c++ nms.cpp")\n'
        'print(40 * "a warning\\n", flush=True); time.sleep(1)'
    )
    module.steps.run(environment, 'mmcv', [sys.executable, str(script)])
    assert 'mmcv: 1 s so far, 7 of 131 files compiled' in (
        capsys.readouterr().err
    )


def test_a_bare_machine_is_told_all_it_lacks(env, monkeypatch, tmp_path):
    module = load()
    environment = module.Environment(env)
    module.claim(environment)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        module.importlib.util,
        'find_spec',
        lambda name: None if name == 'ensurepip' else find_spec(name),
    )
    monkeypatch.setattr(module.sysconfig, 'get_path', lambda _: str(tmp_path))
    monkeypatch.setenv('CXX', 'no-such-compiler')
    version = f'python3.{sys.version_info[1]}'
    with pytest.raises(module.SetupError) as error:
        module.check_machine(environment)
    message = str(error.value)
    for lack in (f'({version}-venv)', f'({version}-dev)', '(g++)'):
        assert lack in message


def test_a_small_disk_is_found_before_the_downloads(env, monkeypatch):
    module = load()
    environment = module.Environment(env)
    module.claim(environment)
    monkeypatch.setattr(module, 'NEEDED_DISK', 10**9)
    with pytest.raises(module.SetupError, match='GB of free disk for .*, got'):
        module.check_machine(environment)


def test_an_old_python_is_refused(tmp_path):
    old = tmp_path / 'python3.9'
    old.write_text(
        '#!/bin/sh\n'
        'case "$1" in --version) echo Python 3.9.2;; *) exit 1;; esac\n'
    )
    old.chmod(0o755)
    result = subprocess.run(
        ['bash', str(TOOLS / 'setup_env.sh')],
        env={**os.environ, 'PYTHON': str(old)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert result.stderr.startswith(
        'mmattn expects Python 3.10 to 3.14, got: Python 3.9.2; install one'
    )


def test_the_named_python_may_lie_in_a_folder_with_spaces(tmp_path):
    python = tmp_path / 'a folder' / 'python3'
    python.parent.mkdir()
    # Fit, and it prints the script that it is to run.
    python.write_text('#!/bin/sh\n[ "$1" = -c ] || echo "$1"\n')
    python.chmod(0o755)
    result = subprocess.run(
        ['bash', str(TOOLS / 'setup_env.sh')],
        env={**os.environ, 'PYTHON': str(python)},
        capture_output=True,
        text=True,
    )
    assert result.stdout == f'{TOOLS / "setup_env.py"}\n', result.stderr


def test_asking_whether_it_is_ready_makes_nothing(setup_env, env, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['setup_env.py', '--if-ready'])
    assert setup_env.main() == 1
    assert not env.exists()


def test_the_shell_is_quick_when_all_is_ready(setup_env, env):
    setup_env.main()
    started = time.monotonic()
    result = subprocess.run(
        ['bash', str(TOOLS / 'setup_env.sh')], capture_output=True, text=True
    )
    assert result.stdout == f'{env}/bin/python\n'
    assert time.monotonic() - started < 15


@pytest.mark.parametrize('script', ['quickstart.sh', 'run_tests.sh'])
def test_help_makes_no_environment(env, script):
    result = subprocess.run(
        ['bash', str(TOOLS / script), '--help'], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert f'bash tools/{script} [--' in result.stdout
    assert not env.exists()


@pytest.mark.parametrize('word, status', [('--help', 0), ('--if-redy', 2)])
def test_a_word_it_does_not_know_makes_nothing(
    setup_env, env, monkeypatch, capsys, word, status
):
    monkeypatch.setattr(sys, 'argv', ['setup_env.py', word])
    assert setup_env.main() == status
    assert '--if-ready' in capsys.readouterr().err
    assert not env.exists()
