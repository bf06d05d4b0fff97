"""Which interpreter the launchers run."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / 'tools' / 'find_python.sh'


def find(**env):
    done = subprocess.run(
        ['bash', str(SCRIPT)],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_named_interpreter_comes_first():
    assert find(PYTHON='/opt/other/python') == '/opt/other/python'


def test_a_stack_on_the_path_comes_next():
    folder = Path(sys.executable).parent
    assert find(PYTHON='', PATH=f'{folder}:/usr/bin:/bin') == 'python'


def test_without_any_stack_the_tool_itself_explains(tmp_path):
    found = find(PYTHON='', PATH='/usr/bin:/bin', MMATTN_ENV=str(tmp_path))
    assert found == 'python3'
    assert not list(tmp_path.iterdir())
