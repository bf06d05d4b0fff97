"""The report of ``python -m mmattn``, with and without what it looks for."""

import subprocess
import sys
import types

import pytest

from mmattn import diagnosis, ops
from mmattn.stack import ONEDL, OPENMMLAB, Installed


@pytest.fixture
def installed(monkeypatch):
    """Make exactly the given distributions look installed, and import."""

    def pretend(*items):
        for item in items:
            module = types.ModuleType(item.package)
            monkeypatch.setitem(sys.modules, item.package, module)
        monkeypatch.setattr(diagnosis, 'find_installed', lambda: list(items))
        monkeypatch.setattr(diagnosis, 'is_importable', lambda name: False)

    return pretend


def by_label(findings):
    return {finding.label: finding for finding in findings}


def onedl(package, distribution, version):
    return Installed(ONEDL, package, distribution, version)


def test_reports_this_environment(capsys):
    assert diagnosis.main() == 0
    text = capsys.readouterr().out
    assert f'stack: {diagnosis.find_stack()}\n' in text
    for item in diagnosis.find_installed():
        assert f'{item.distribution} {item.version}\n' in text
    for row in ops.list_implementations():
        assert row.name in text and row.operation in text


def test_runs_as_a_module():
    result = subprocess.run(
        [sys.executable, '-m', 'mmattn'], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout
    assert result.stdout.startswith('mmattn ')


def test_without_torch_and_stack_every_remedy_is_named():
    """In a python that sees the standard library and mmattn alone."""
    code = (
        'import sys, runpy\n'
        "sys.path = [p for p in sys.path if 'site-packages' not in p]\n"
        "runpy.run_module('mmattn', run_name='__main__')"
    )
    result = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True
    )
    assert result.returncode == 1, result.stderr
    for line in (
        'stack: none',
        ' ! torch        not installed',
        ' ! mmcv        not installed',
        "mmattn.ops  does not import: No module named 'torch'",
        'pip install torch==2.11.0 torchvision==0.26.0\n',
        'pip install onedl-mmengine==0.10.12\n',
        'pip install --no-build-isolation onedl-mmcv==2.3.6\n',
    ):
        assert line in result.stdout


def test_both_stacks_are_to_be_uninstalled(installed):
    installed(
        onedl('mmengine', 'onedl-mmengine', '0.10.12'),
        Installed(OPENMMLAB, 'mmdet', 'mmdet', '3.3.0'),
    )
    assert diagnosis.find_stack() is None
    (finding,) = diagnosis.probe_stack(None)
    assert finding.value == 'onedl-mmengine mmdet'
    assert finding.remedy.startswith(
        'pip uninstall -y onedl-mmengine mmdet && '
    )


def test_an_old_package_and_an_absent_codebase(installed):
    installed(
        onedl('mmengine', 'onedl-mmengine', '0.10.4'),
        onedl('mmcv', 'onedl-mmcv', '2.3.6'),
    )
    findings = by_label(diagnosis.probe_stack(ONEDL))
    assert findings['mmengine'].value == (
        'onedl-mmengine 0.10.4, but mmattn expects >=0.10.6'
    )
    assert findings['mmengine'].remedy == 'pip install onedl-mmengine==0.10.12'
    # A codebase is needed by its configs alone: nothing to mend.
    assert findings['mmdet'] == diagnosis.Finding(
        'mmdet',
        'not installed; for its configs: pip install onedl-mmdetection==3.5.1',
    )


@pytest.mark.parametrize('torch, pair', [('2.11.0', False), ('2.14.0', True)])
def test_mmcv_without_operators(installed, monkeypatch, torch, pair):
    installed(
        onedl('mmengine', 'onedl-mmengine', '0.10.12'),
        onedl('mmcv', 'onedl-mmcv', '2.3.6'),
        onedl('mmdet', 'onedl-mmdetection', '3.5.1'),
    )
    monkeypatch.setitem(sys.modules, 'mmcv.ops', None)
    monkeypatch.setattr(diagnosis, 'distribution_version', lambda _: torch)
    finding = by_label(diagnosis.probe_stack(ONEDL))['mmcv.ops']
    assert 'do not import: import of mmcv.ops halted' in finding.value
    assert finding.remedy.endswith(
        'pip install --no-build-isolation --no-cache-dir --no-deps '
        '--force-reinstall onedl-mmcv==2.3.6'
    )
    # mmcv compiles only against some versions of torch.
    assert finding.remedy.startswith('pip install torch==2.11.0') is pair


@pytest.fixture
def breaks(monkeypatch):
    """Make the import of one module raise an error."""
    import_module = diagnosis.importlib.import_module

    def pretend(broken, error):
        def fail(module):
            if module == broken:
                raise error
            return import_module(module)

        monkeypatch.setattr(diagnosis.importlib, 'import_module', fail)

    return pretend


LIBGL = 'libGL.so.1: cannot open shared object file: No such file or directory'


@pytest.mark.parametrize('broken', ['mmcv', 'mmcv.ops', 'mmdet'])
def test_without_libgl_opencv_is_replaced(installed, breaks, broken):
    installed(
        onedl('mmcv', 'onedl-mmcv', '2.3.6'),
        onedl('mmdet', 'onedl-mmdetection', '3.5.1'),
    )
    breaks(broken, ImportError(LIBGL))
    finding = by_label(diagnosis.probe_stack(ONEDL))[broken]
    assert finding.value.endswith(f'not import: {LIBGL}')
    assert finding.remedy == (
        'pip uninstall -y opencv-python && pip install --force-reinstall '
        '--no-deps opencv-python-headless'
    )


def test_a_codebase_that_refuses_its_mmcv(
    installed, tmp_path, monkeypatch, capsys
):
    installed(
        Installed(OPENMMLAB, 'mmengine', 'mmengine', '0.10.7'),
        Installed(OPENMMLAB, 'mmcv', 'mmcv', '2.2.0'),
        Installed(OPENMMLAB, 'mmdet', 'mmdet', '3.3.0'),
    )
    (tmp_path / 'mmdet.py').write_text(
        "assert False, 'MMCV==2.2.0 is used but incompatible.'"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, 'mmdet')
    finding = by_label(diagnosis.probe_stack(OPENMMLAB))['mmdet']
    assert finding.value == (
        'mmdet 3.3.0, but does not import: '
        'MMCV==2.2.0 is used but incompatible.'
    )
    assert finding.remedy.endswith('--force-reinstall mmcv==2.1.0')
    assert diagnosis.main() == 1
    assert f' ! mmdet:\n     {finding.remedy}\n' in capsys.readouterr().out


@pytest.mark.parametrize(
    'error, remedy',
    [
        (
            ModuleNotFoundError("No module named 'ftfy'", name='ftfy'),
            'pip install ftfy',
        ),
        (
            ImportError("cannot import name 'x' from 'mmengine.config'"),
            'pip install onedl-mmengine==0.10.12 --no-deps --force-reinstall',
        ),
        (
            AssertionError(),
            'pip install onedl-mmsegmentation==1.4.2 '
            '--no-deps --force-reinstall',
        ),
    ],
)
def test_a_codebase_that_does_not_import(installed, breaks, error, remedy):
    installed(onedl('mmseg', 'onedl-mmsegmentation', '1.4.2'))
    breaks('mmseg', error)
    finding = by_label(diagnosis.probe_stack(ONEDL))['mmseg']
    assert finding.value == (
        'onedl-mmsegmentation 1.4.2, but does not import: '
        f'{str(error) or "AssertionError()"}'
    )
    assert finding.remedy == remedy


def test_operators_do_not_matter_without_mmdet_and_mmseg(
    installed, monkeypatch
):
    installed(
        onedl('mmengine', 'onedl-mmengine', '0.10.12'),
        onedl('mmcv', 'onedl-mmcv', '2.3.6'),
    )
    monkeypatch.setitem(sys.modules, 'mmcv.ops', None)
    finding = by_label(diagnosis.probe_stack(ONEDL))['mmcv.ops']
    assert finding.value.endswith('; only mmdet and mmseg need them')
    assert not finding.remedy


def test_operators_without_cuda_on_a_machine_with_a_gpu(
    installed, monkeypatch
):
    installed(
        onedl('mmcv', 'onedl-mmcv', '2.3.6'),
        onedl('mmseg', 'onedl-mmsegmentation', '1.4.2'),
    )
    cpu_ops = types.SimpleNamespace(
        get_compiling_cuda_version=lambda: 'not available'
    )
    monkeypatch.setitem(sys.modules, 'mmcv.ops', cpu_ops)
    monkeypatch.setattr('torch.cuda.is_available', lambda: True)
    finding = by_label(diagnosis.probe_stack(ONEDL))['mmcv.ops']
    assert 'compiled for the CPU, though torch sees a GPU' in finding.value
    assert finding.remedy


def test_torchvision_of_another_build(monkeypatch):
    def fail(module):
        raise RuntimeError('operator torchvision::nms does not exist')

    monkeypatch.setattr(diagnosis.importlib, 'import_module', fail)
    finding = by_label(diagnosis.probe_torch(ONEDL))['torchvision']
    assert finding.value == (
        'does not import: operator torchvision::nms does not exist'
    )
    assert finding.remedy == (
        'pip install torch==2.11.0 torchvision==0.26.0 --force-reinstall'
    )


def test_numpy_2_does_not_fit_the_openmmlab_stack(monkeypatch):
    monkeypatch.setattr(diagnosis, 'distribution_version', lambda _: '2.4.6')
    findings = by_label(diagnosis.probe_torch(OPENMMLAB))
    assert findings['numpy'].remedy == "pip install 'numpy<2'"
    assert not by_label(diagnosis.probe_torch(ONEDL))['numpy'].remedy


def test_an_implementation_that_cannot_run_says_why(monkeypatch):
    row = ops.Implementation(
        'attention', 'kernel', None, 'a GPU', 20, lambda: 'no GPU', None
    )
    monkeypatch.setattr(ops, 'list_implementations', lambda: [row])
    _, finding = diagnosis.probe_operations()
    assert finding == diagnosis.Finding(
        'attention', 'kernel      cannot run: no GPU'
    )


@pytest.mark.parametrize(
    'reason, value',
    [(None, 'compiled for this CPU'), ('no compiler', 'none: no compiler')],
)
def test_kernels_of_the_cpu(monkeypatch, reason, value):
    monkeypatch.setattr(ops.cpu_kernels, 'why_no_kernels', lambda: reason)
    first, *others = diagnosis.probe_operations()
    assert first[:3] == ('kernels in C++', value, '')
    states = {x.value[12:] for x in others if x.value.startswith('cpp ')}
    assert all(state.startswith('cannot run: ') for state in states) == bool(
        reason
    )


SLOWER = (
    'Models run, slower than they could on a CPU: attention, clustering, '
    "linear layers, convolutions and norms take the next row after 'cpp'; "
)


@pytest.mark.parametrize(
    'switched_off, last',
    [
        (False, 'to mend it, install GCC (on Debian: apt install g++).'),
        (True, 'no kernels, for some reason.'),
    ],
)
def test_the_last_line_tells_of_slower_models(
    monkeypatch, capsys, switched_off, last
):
    building = ops.cpu_kernels.building
    monkeypatch.setattr(building, '_MISSING', 'no kernels, for some reason')
    monkeypatch.setattr(building, 'IS_SWITCHED_OFF', switched_off)
    monkeypatch.setattr(diagnosis, 'probe_stack', lambda stack: [])
    assert diagnosis.main() == 0
    text = capsys.readouterr().out
    assert 'none: no kernels, for some reason\n' in text
    assert text.splitlines()[-1] == SLOWER + last


def test_a_switch_that_is_not_understood(monkeypatch):
    monkeypatch.setenv('MMATTN_CPU_KERNELS', 'maybe')
    code = (
        'from mmattn.diagnosis import probe_operations\n'
        'print(*probe_operations())'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True
    )
    assert 'does not import: MMATTN_CPU_KERNELS expects 1, ' in done.stdout
    assert "remedy='unset MMATTN_CPU_KERNELS'" in done.stdout
