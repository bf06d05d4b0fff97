"""tools/benchmark.py, as a user calls it."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'benchmark.py'


def run(*args):
    return subprocess.run(
        [sys.executable, str(TOOL), *map(str, args)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )


@pytest.fixture(scope='module')
def measured(tmp_path_factory):
    """Two backbones and a class of a file, at two sizes."""
    folder = tmp_path_factory.mktemp('benchmark')
    file = folder / 'net.py'
    file.write_text(
        'from torch import nn\n\n\n'
        'def make(channels):\n'
        '    return nn.Conv2d(3, channels, 4, stride=4)\n'
    )
    models = ['swin-nano', 'boat-swin-nano', f'{file}:make(channels=6)']
    quick = '--batch 1 --rounds 2 --min-seconds 0 --threads 1'.split()
    sizes = ['--sizes', '32', '32x48', '--profile', '2']
    done = run(*models, *sizes, *quick, '--out', folder / 'out')
    assert done.returncode == 0, done.stderr
    return models, folder / 'out', done


def test_files(measured):
    models, out, done = measured
    assert {path.name for path in out.iterdir()} == {
        'cost.png',
        'growth.png',
        'results.csv',
        'results.json',
        'results.md',
    }
    results = json.loads((out / 'results.json').read_text())
    assert results['settings']['models'] == models
    assert results['command'].startswith('python ')
    assert results['threads'] == 1
    assert results['machine']['matmul_rate'] > 1e8
    rows = results['rows']
    assert len(rows) == len(models) * 2 * 2
    assert [r['model'] for r in rows] == models * 4
    assert {(r['height'], r['width']) for r in rows} == {(32, 32), (32, 48)}
    for r in rows:
        assert (r['ratio']['median'] == 1) or (r['model'] != models[0])
        assert len(r['rounds']) == len(r['operations']) == 2
    assert rows[2]['parameters'] == 6 * (3 * 4 * 4 + 1)
    assert rows[2]['multiply_adds'] == 6 * 3 * 4 * 4 * 64
    csv = (out / 'results.csv').read_text().splitlines()
    assert len(csv) == 1 + len(rows)
    assert (out / 'results.md').read_text().endswith(done.stdout)


def test_progress_and_tables_are_apart(measured):
    models, _, done = measured
    assert '32 x 48, training: round 2 of 2' in done.stderr
    assert 'GFLOP/s in a matrix product' in done.stderr
    assert done.stdout.startswith('| model | size | mode |')
    assert 'round' not in done.stdout
    assert done.stdout.count('| boat-swin-nano | 32 x 48 | training |') == 3
    assert '| boat-swin-nano | training | 32 x 48 |' in done.stdout


@pytest.fixture(scope='module')
def tool():
    """The tool as a module, which starts faster than a process."""
    spec = importlib.util.spec_from_file_location('benchmark', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def mistake(tool, monkeypatch, capsys, *args):
    """What is said of a command line that cannot run."""
    monkeypatch.setattr(sys, 'argv', ['benchmark.py', *map(str, args)])
    with pytest.raises(SystemExit) as ended:
        tool.run_command(tool.main)
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_results_are_not_written_over(measured, tool, monkeypatch, capsys):
    _, out, _ = measured
    said = mistake(tool, monkeypatch, capsys, 'swin-nano', '--out', out)
    assert '--out expects a new or empty folder, got' in said
    assert len(said.splitlines()) == 1  # nothing was measured before


@pytest.mark.parametrize(
    'args, message',
    [
        (['swim-nano'], 'a model is expected: an arch of ours, scope.Class'),
        (['smt-nano(in_chanels=1)'], 'got in_chanels; close to it: in_chan'),
        (['mmattn.WindowAttention'], 'expects more arguments, in brackets b'),
        (['none.py:Net'], 'none.py:Net expects a file none.py, which does'),
        (['swin-nano', '--dtype', 'int8'], "invalid choice: 'int8'"),
        (['swin-nano', '--batch', '0'], '--batch expects a number from 1 up'),
        (['swin-nano', '--sizes', '0'], "invalid read_size value: '0'"),
        (['swin-nano', '--sizes', '64x'], "invalid read_size value: '64x'"),
        (
            ['swin-nano', '--sizes', '3', '--rounds', '2'],
            'swin-nano at 3 x 3, batch 8: cannot run: ',
        ),
    ],
)
def test_mistakes_end_in_one_message(args, message, tool, monkeypatch, capsys):
    assert message in mistake(tool, monkeypatch, capsys, *args)


@pytest.mark.parametrize(
    'code, message',
    [
        (
            'def make(:\n',
            'SyntaxError: invalid syntax ({file}, line 1: def ma',
        ),
        (
            'import nowhere_to_be_found\n',
            "ModuleNotFoundError: No module named 'nowhere_to_be_found' "
            '({file}, line 1, in <module>: import nowhere_to_be_found)',
        ),
        ('exit(3)\n', 'SystemExit: 3 ({file}, line 1, in <module>: exit(3))'),
        (
            'def make():\n    return dict()["net"]\n',
            "KeyError: 'net' ({file}, line 2, in make: return dict()[",
        ),
        (
            'from torch import nn\n\n'
            'class make(nn.Module):\n'
            '    def forward(self, x):\n'
            '        return self.stem(x)\n',
            "AttributeError: 'make' object has no attribute 'stem' ({file}, "
            'line 5, in forward: return self.stem(x))',
        ),
        (
            'from torch import nn\n\n'
            'def make():\n'
            '    return nn.Linear(7, 7)\n',
            'cannot run: RuntimeError: mat1 and mat2 shapes cannot be mult',
        ),
        (
            'import sys\n\ndef make():\n    sys.exit()\n',
            'cannot run: SystemExit ({file}, line 4, in make: sys.exit())',
        ),
        (
            'import sys\n'
            'from torch import nn\n\n'
            'class make(nn.Module):\n'
            '    def forward(self, x):\n'
            '        sys.exit(0)\n',
            'cannot run: SystemExit: 0 ({file}, line 6, in forward: sys.exit',
        ),
        (
            'def make():\n    return 7\n',
            'cannot run: ModelTypeError: {file}:make is expected to make a '
            'torch.nn.Module, got int',
        ),
    ],
)
def test_own_code_that_fails_shows_its_line(
    code, message, tool, tmp_path, monkeypatch, capsys
):
    file = tmp_path / 'own_net.py'
    file.write_text(code)
    monkeypatch.delitem(sys.modules, 'own_net', raising=False)
    machine = SimpleNamespace(name='', matmul_rate=1.0, copy_bandwidth=1.0)
    monkeypatch.setattr(tool, 'measure_machine', lambda *args: machine)
    said = mistake(tool, monkeypatch, capsys, f'{file}:make', '--sizes', '32')
    assert f'benchmark.py: error: {file}:make' in said
    assert message.format(file=file) in said
    assert 'Traceback' not in said


def test_a_gpu_that_is_not_there(tool, monkeypatch, capsys):
    monkeypatch.setattr(tool.torch.cuda, 'is_available', lambda: False)
    args = ['swin-nano', '--device', 'cuda']
    said = mistake(tool, monkeypatch, capsys, *args)
    assert said.startswith('benchmark.py: error: --device cuda expects a GPU')
