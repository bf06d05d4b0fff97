"""The set-up of the environment, with a python that installs nothing."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / 'tools' / 'setup_env.sh'
ALL = ['venv', 'base', 'download', 'wheel', 'mmcv', 'codebases', 'check']

# Stands for every python. Each step adds a line to the file `ran`; a file
# `break-STEP` makes it fail and `linger-STEP` makes it last.
FAKE = f"""#!{sys.executable}
import os, pathlib, shutil, subprocess, sys, tarfile, time
here = pathlib.Path(__file__).resolve()
words = sys.argv[1:]
text = ' '.join(words)
state = pathlib.Path(os.environ['FAKE_STATE'])
if words[0] == '-' or 'sys.exit' in text or text.endswith('[:2])'):
    sys.exit(subprocess.call([{sys.executable!r}, *words]))
if 'torch.__version__' in text:
    print('torch-2.11.0+fake'), sys.exit()
if 'virtual_memory' in text:
    print(2), sys.exit()
if text == '-m pip --version':
    sys.exit()
if words[:2] == ['-m', 'venv']:
    step = 'venv'
elif words[0] == '-c':
    step = 'check'
elif words[2] in ('download', 'wheel'):
    step = words[2]
else:
    step = pathlib.Path(words[words.index('-r') + 1]).stem if (
        '-r' in words) else 'mmcv'
with open(state / 'ran', 'a') as stream:
    stream.write(step + chr(10))
if (state / f'linger-{{step}}').exists():
    print(40 * 'a warning' + chr(10) + '  [7/131] c++ nms.cpp', flush=True)
    time.sleep(60)
if (state / f'break-{{step}}').exists():
    sys.exit((state / f'break-{{step}}').read_text())
if step == 'venv':
    target = pathlib.Path(words[2], 'bin')
    target.mkdir()
    shutil.copy(here, target / 'python')
if step == 'download':
    folder = pathlib.Path(words[words.index('--dest') + 1], 'mmcv-1')
    folder.mkdir(parents=True)
    (folder / 'setup.py').touch()
    with tarfile.open(f'{{folder}}.tar.gz', 'w:gz') as archive:
        archive.add(folder, 'mmcv-1')
if step == 'wheel':
    assert pathlib.Path(words[-1], 'setup.py').is_file()
    folder = pathlib.Path(words[words.index('--wheel-dir') + 1])
    folder.mkdir(parents=True)
    (folder / 'onedl_mmcv-2.3.6-py3-none-any.whl').touch()
if step == 'mmcv':
    info = here.parents[1].joinpath(
        'lib', 'python3', 'site-packages', 'onedl_mmcv-2.3.6.dist-info')
    info.mkdir(parents=True, exist_ok=True)
    (info / 'direct_url.json').write_text(words[-1].replace('+', '%2B'))
"""

# A python without venv and headers.
BARE = f"""#!{sys.executable}
import importlib.util, sys, sysconfig
if sys.argv[1] == '-':
    sys.argv.pop(0)
    importlib.util.find_spec = lambda name: None
    sysconfig.get_path = lambda name: '/nowhere'
    exec(sys.stdin.read())
"""


@pytest.fixture
def env(tmp_path, monkeypatch):
    """The folder of an environment that does not exist yet."""
    python = tmp_path / 'a folder' / 'python3'
    python.parent.mkdir()
    python.write_text(FAKE)
    python.chmod(0o755)
    monkeypatch.setenv('PYTHON', str(python))
    monkeypatch.setenv('FAKE_STATE', str(tmp_path))
    monkeypatch.setenv('MMATTN_ENV', str(tmp_path / 'env'))
    monkeypatch.delenv('MMATTN_STACK', raising=False)
    return tmp_path / 'env'


def start(*words, script=SCRIPT):
    return subprocess.Popen(
        ['bash', str(script), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs in the background ignores Ctrl-C.
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.default_int_handler
        ),
    )


def run(*words, script=SCRIPT):
    """Status, standard output and standard error of one set-up."""
    process = start(*words, script=script)
    out, error = process.communicate(timeout=60)
    return process.returncode, out, error


def ran(env):
    """The steps that ran, in order, and forget them."""
    record = env.parent / 'ran'
    steps = record.read_text().split() if record.exists() else []
    record.unlink(missing_ok=True)
    return steps


def wait_for(env, step):
    end = time.monotonic() + 20
    record = env.parent / 'ran'
    while not record.exists() or step not in record.read_text().split():
        assert time.monotonic() < end, f'waited 20 s for {step}'
        time.sleep(0.05)


def test_makes_it_once(env):
    status, out, error = run()
    assert (status, out) == (0, f'{env}/bin/python\n'), error
    assert ran(env) == ALL
    assert run() == (0, f'{env}/bin/python\n', '')
    assert run('--if-ready') == (0, f'{env}/bin/python\n', '')
    assert ran(env) == []


@pytest.fixture
def clone(tmp_path):
    """A copy of the scripts and pins that a test may change."""
    for name in ('requirements', 'tools'):
        shutil.copytree(ROOT / name, tmp_path / 'clone' / name)
    return tmp_path / 'clone'


def test_a_changed_pin_updates_without_compiling(env, clone):
    run()
    ran(env)
    script = clone / 'tools' / 'setup_env.sh'
    script.write_text(script.read_text() + '# a comment\n')
    pins = clone / 'requirements' / 'onedl' / 'base.txt'
    pins.write_text('# another comment\n\n' + pins.read_text())
    assert run(script=script)[0] == 0
    assert ran(env) == []
    pins.write_text(pins.read_text() + 'another==1.0\n')
    assert run('--if-ready', script=script) == (1, '', '')
    assert run(script=script)[0] == 0
    assert ran(env) == ['base', 'codebases', 'check']


def test_another_torch_takes_another_mmcv(env, monkeypatch):
    run()
    ran(env)
    (env / '.mmattn' / 'installed').unlink()
    python = env / 'bin' / 'python'
    python.write_text(FAKE.replace('2.11.0+fake', '2.12.0'))
    assert run()[0] == 0
    assert ran(env) == ['base', *ALL[2:]]


def test_resumes_after_a_failure(env):
    obstacle = env.parent / 'break-wheel'
    obstacle.write_text('no such luck')
    status, out, error = run()
    assert (status, out) == (1, '')
    assert 'no such luck\n' in error
    assert f'step mmcv failed, see {env}/.mmattn/logs/mmcv.log' in error
    assert ran(env) == ALL[:4]
    obstacle.unlink()
    assert run()[0] == 0
    assert ran(env) == ['base', *ALL[3:]]  # the sources are kept


def test_a_change_taken_back_is_repeated(env, clone):
    """The environment may hold packages of either version by then."""
    run()
    ran(env)
    pins = clone / 'requirements' / 'onedl' / 'base.txt'
    pins.write_text('another==1.0\n')
    (env.parent / 'break-base').touch()
    assert run(script=clone / 'tools' / 'setup_env.sh')[0] == 1
    (env.parent / 'break-base').unlink()
    ran(env)
    assert run()[0] == 0
    assert ran(env) == ['base', 'codebases', 'check']


def test_reports_a_full_disk(env):
    (env.parent / 'break-base').write_text('No space left on device')
    assert 'PIP_CACHE_DIR' in run()[2]


def test_another_python_starts_anew_but_keeps_the_wheels(env):
    run()
    ran(env)
    (env / 'bin' / 'python').unlink()
    (env / 'left-over').touch()
    assert run()[0] == 0
    assert ran(env) == ['venv', 'base', *ALL[4:]]
    assert not (env / 'left-over').exists()


def test_leaves_a_folder_with_other_files_alone(env):
    env.mkdir()
    (env / 'thesis.tex').touch()
    status, _, error = run()
    assert status == 1
    assert 'MMATTN_ENV' in error
    assert os.listdir(env) == ['thesis.tex']


def test_waits_for_another_set_up(env):
    (env / '.mmattn').mkdir(parents=True)
    with (env / '.mmattn' / 'lock').open('w') as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        process = start()
        assert 'waiting for it' in process.stderr.readline()
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0, error


def test_two_at_once_make_it_once(env):
    for process in [start(), start()]:
        out, error = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, f'{env}/bin/python\n'), error
    assert ran(env) == ALL


@pytest.mark.parametrize(
    'kind, status', [(signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_resumes_after_a_signal(env, kind, status):
    linger = env.parent / 'linger-base'
    linger.touch()
    process = start()
    wait_for(env, 'base')
    process.send_signal(kind)
    error = process.communicate(timeout=20)[1]
    assert process.returncode == status
    assert ('interrupted' in error) == (kind == signal.SIGINT)
    with (env / '.mmattn' / 'lock').open() as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # its command has ended too
    linger.unlink()
    ran(env)
    assert run()[0] == 0
    assert ran(env) == ALL[1:]


def test_reports_progress(env, clone):
    script = clone / 'tools' / 'setup_env.sh'
    text = script.read_text()
    script.write_text(text.replace('next=30', 'next=0'))
    (env.parent / 'linger-wheel').touch()
    process = start(script=script)
    wait_for(env, 'wheel')
    time.sleep(1)
    process.terminate()
    assert '[7/131]' in process.communicate(timeout=20)[1]


def test_reports_all_that_a_machine_lacks(env, monkeypatch):
    monkeypatch.setenv('CXX', 'no-such-compiler')
    Path(os.environ['PYTHON']).write_text(BARE)
    status, _, error = run()
    assert status == 1
    version = f'python3.{sys.version_info[1]}'
    assert f'missing: {version}-venv, {version}-dev, g++;' in error
    assert ran(env) == []


def test_another_stack_has_a_folder_of_its_own(env, monkeypatch):
    monkeypatch.setenv('MMATTN_STACK', 'openmmlab')
    (env.parent / 'break-base').touch()
    assert run()[0] == 1
    assert Path(f'{env}-openmmlab', 'bin', 'python').exists()
    assert not env.exists()
    monkeypatch.setenv('MMATTN_STACK', 'openmlab')
    assert 'use onedl or openmmlab' in run()[2]


def test_an_old_python_is_refused(env, monkeypatch):
    python = Path(os.environ['PYTHON'])
    python.write_text('#!/bin/sh\nexit 1\n')
    status, _, error = run()
    assert status == 1
    assert 'Python 3.10 to 3.14 is needed' in error
    monkeypatch.setenv('MMATTN_STACK', 'openmmlab')
    assert 'Python 3.10 to 3.11 is needed' in run()[2]


@pytest.mark.parametrize('word, status', [('--help', 0), ('--if-redy', 2)])
def test_help_makes_nothing(env, word, status):
    code, out, error = run(word)
    assert (code, out) == (status, '')
    assert '--if-ready' in error
    assert not env.exists()


def test_asking_whether_it_is_ready_makes_nothing(env):
    assert run('--if-ready') == (1, '', '')
    assert not env.exists()


@pytest.mark.parametrize('name', ['quickstart.sh', 'run_tests.sh'])
def test_help_of_the_commands_makes_no_environment(env, name):
    status, out, error = run('--help', script=SCRIPT.with_name(name))
    assert status == 0, error
    assert f'bash tools/{name} [--' in out
    assert not env.exists()
