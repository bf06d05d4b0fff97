"""The report of ``python -m mmattn``, with and without what it looks for."""

import subprocess
import sys
import types

import pytest

from mmattn import env_report, ops, stack
from mmattn.stack import ONEDL, OPENMMLAB, Installed

LIBGL = 'libGL.so.1: cannot open shared object file: No such file or directory'


@pytest.fixture
def installed(monkeypatch):
    """Make exactly the given distributions look installed, and import."""

    def pretend(*items):
        for item in items:
            module = types.ModuleType(item.package)
            monkeypatch.setitem(sys.modules, item.package, module)
        cpu = types.SimpleNamespace(get_compiling_cuda_version=lambda: 'none')
        monkeypatch.setitem(sys.modules, 'mmcv.ops', cpu)
        monkeypatch.setattr(stack, 'find_installed', lambda: list(items))
        monkeypatch.setattr(stack, 'is_importable', lambda name: False)

    return pretend


@pytest.fixture
def breaks(monkeypatch):
    """Make the import of one module raise an error."""
    import_module = env_report.importlib.import_module

    def pretend(broken, error):
        def fail(module):
            if module == broken:
                raise error
            return import_module(module)

        monkeypatch.setattr(env_report.importlib, 'import_module', fail)

    return pretend


def onedl(package, distribution, version):
    return Installed(ONEDL, package, distribution, version)


def problems_of(stack_name):
    problems = {}
    env_report.report_stack(stack_name, problems)
    return problems


def test_reports_this_environment_on_one_screen(capsys):
    assert env_report.main([]) == 0
    text = capsys.readouterr().out
    for item in stack.find_installed():
        assert f'  {item.package} ' in text and item.version in text
    for item in ops.list_implementations():
        assert item.operation in text
    assert 'No problems' in text.splitlines()[-1]
    lines = text.splitlines()
    assert len(lines) <= 23  # and the prompt
    # Paths are as long as they are.
    assert max(len(line) for line in lines[2:]) <= 80


def test_all_reports_what_implementations_require(capsys):
    assert env_report.main(['--all']) == 0
    text = capsys.readouterr().out
    for item in ops.list_implementations():
        assert item.requires in text
    assert 'TorchVision' in text  # of mmengine's report


def test_runs_as_a_module():
    result = subprocess.run(
        [sys.executable, '-m', 'mmattn'], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout
    assert result.stdout.startswith('mmattn ')
    assert result.stderr == ''


def test_names_every_command_without_torch_and_stack():
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
        'pip install torch==2.11.0 torchvision==0.26.0 --force-reinstall\n',
        'pip install onedl-mmengine==0.10.12\n',
        'pip install --no-build-isolation onedl-mmcv==2.3.6\n',
    ):
        assert line in result.stdout


def test_both_stacks_are_to_be_uninstalled(installed):
    installed(
        onedl('mmengine', 'onedl-mmengine', '0.10.12'),
        Installed(OPENMMLAB, 'mmdet', 'mmdet', '3.3.0'),
    )
    (command,) = problems_of(ONEDL).values()
    assert command.startswith('pip uninstall -y onedl-mmengine mmdet && ')


def test_an_old_package_and_an_absent_codebase(installed):
    installed(
        onedl('mmengine', 'onedl-mmengine', '0.10.4'),
        onedl('mmcv', 'onedl-mmcv', '2.3.6'),
    )
    # A codebase is needed only for its configs.
    assert problems_of(ONEDL) == {
        'mmengine 0.10.4 is older than 0.10.6': (
            'pip install onedl-mmengine==0.10.12'
        )
    }


@pytest.mark.parametrize('broken', ['mmcv', 'mmcv.ops', 'mmdet'])
def test_without_libgl_opencv_is_replaced(installed, breaks, broken):
    installed(
        onedl('mmengine', 'onedl-mmengine', '0.10.12'),
        onedl('mmcv', 'onedl-mmcv', '2.3.6'),
        onedl('mmdet', 'onedl-mmdetection', '3.5.1'),
    )
    breaks(broken, ImportError(LIBGL))
    ((problem, command),) = problems_of(ONEDL).items()
    assert problem.startswith(f'{broken} ')
    assert command == env_report.OPENCV_COMMAND


@pytest.mark.parametrize(
    'error, command',
    [
        (
            ModuleNotFoundError("No module named 'ftfy'", name='ftfy'),
            'pip install ftfy',
        ),
        (
            AssertionError(),
            'pip install onedl-mmsegmentation==1.4.2 --no-deps '
            '--no-cache-dir --force-reinstall',
        ),
    ],
)
def test_a_codebase_that_does_not_import(installed, breaks, error, command):
    installed(
        onedl('mmengine', 'onedl-mmengine', '0.10.12'),
        onedl('mmcv', 'onedl-mmcv', '2.3.6'),
        onedl('mmseg', 'onedl-mmsegmentation', '1.4.2'),
    )
    breaks('mmseg', error)
    ((problem, found),) = problems_of(ONEDL).items()
    assert (str(error) or 'AssertionError()') in problem
    assert found == command


def test_mmcv_is_compiled_anew_if_its_operators_do_not_import(
    installed, breaks
):
    installed(
        onedl('mmengine', 'onedl-mmengine', '0.10.12'),
        onedl('mmcv', 'onedl-mmcv', '2.3.6'),
        onedl('mmseg', 'onedl-mmsegmentation', '1.4.2'),
    )
    breaks('mmcv.ops', ImportError('undefined symbol'))
    (command,) = problems_of(ONEDL).values()
    assert command.endswith(
        'pip install --no-build-isolation onedl-mmcv==2.3.6 --no-deps '
        '--no-cache-dir --force-reinstall'
    )
    installed(
        onedl('mmengine', 'onedl-mmengine', '0.10.12'),
        onedl('mmcv', 'onedl-mmcv', '2.3.6'),
    )
    assert not problems_of(ONEDL)  # nothing needs them


def test_torchvision_of_another_build(breaks):
    text = 'operator torchvision::nms does not exist'
    breaks('torchvision', RuntimeError(text))
    problems = {}
    env_report.report_torch(ONEDL, problems)
    assert problems == {
        f'torchvision does not import: {text}': (
            'pip install torch==2.11.0 torchvision==0.26.0 --force-reinstall'
        )
    }


def test_numpy_2_does_not_fit_the_openmmlab_stack(monkeypatch):
    monkeypatch.setattr(stack, 'distribution_version', lambda _: '2.4.6')
    problems = {}
    env_report.report_torch(OPENMMLAB, problems)
    assert list(problems.values()) == ["pip install 'numpy<2'"]


def test_says_why_there_are_no_compiled_kernels(monkeypatch, capsys):
    monkeypatch.setattr(ops._native.KERNELS, 'why_not', lambda: 'install GCC')
    assert env_report.main([]) == 0
    assert 'install GCC' in capsys.readouterr().out
