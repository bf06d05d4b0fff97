"""The check of the stack: its errors, and that it costs nothing."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from mmattn import stack

REQUIREMENTS = Path(__file__).parents[1] / 'requirements'


@pytest.fixture
def install(monkeypatch):
    """Make exactly the given distributions look installed."""

    def pretend(**versions):
        versions = {k.replace('_', '-'): v for k, v in versions.items()}

        def version(name):
            if name not in versions:
                raise metadata.PackageNotFoundError(name)
            return versions[name]

        monkeypatch.setattr(stack.metadata, 'version', version)
        monkeypatch.setattr(stack, 'is_importable', lambda package: False)

    return pretend


@pytest.mark.parametrize(
    'versions',
    [
        dict(onedl_mmengine='0.10.12', onedl_mmcv='2.3.6'),
        dict(mmengine='0.10.7', mmcv='2.1.0', mmdet='3.3.0'),
        dict(mmengine_lite='0.10.6', mmcv_lite='2.0.1'),
        dict(onedl_mmengine='0.11.0rc1', onedl_mmcv='3.0'),
    ],
)
def test_one_supported_stack_passes(install, versions):
    install(**versions)
    stack.check_stack()


def test_no_stack_names_the_commands_of_both(install):
    install()
    with pytest.raises(ImportError, match='neither') as error:
        stack.check_stack()
    for line in (
        '  OneDL: pip install torch==2.11.0 torchvision==0.26.0 && pip '
        "install ninja packaging psutil wheel 'setuptools>=80,<82' && pip "
        'install --no-build-isolation onedl-mmengine==0.10.12 '
        'onedl-mmcv==2.3.6',
        '  OpenMMLab: pip install torch==2.1.2 torchvision==0.16.2 '
        "'numpy<2' && pip install ninja packaging psutil 'wheel<0.46' "
        "'setuptools<70' && pip install --no-build-isolation "
        'mmengine==0.10.7 mmcv==2.1.0',
    ):
        assert line in str(error.value).splitlines()


@pytest.mark.parametrize(
    'versions, got',
    [
        (dict(onedl_mmengine='0.10.12'), 'onedl-mmengine 0.10.12'),
        (
            dict(mmengine='0.10.5', mmcv='2.1.0'),
            'mmengine 0.10.5, mmcv 2.1.0',
        ),
        (
            dict(mmengine='0.10.7', mmcv='1.7.2'),
            'mmengine 0.10.7, mmcv 1.7.2',
        ),
    ],
)
def test_an_unsupported_stack_says_what_was_found(install, versions, got):
    install(**versions)
    with pytest.raises(ImportError, match=f'got {got};'):
        stack.check_stack()


@pytest.mark.parametrize('other', [dict(mmengine='0.10.7'), dict(mmdet='3.3')])
def test_two_stacks_side_by_side_are_an_error(install, other):
    install(onedl_mmengine='0.10.12', onedl_mmcv='2.3.6', **other)
    (name,) = other
    command = f'pip uninstall -y onedl-mmengine onedl-mmcv {name}$'
    with pytest.raises(ImportError, match=command):
        stack.check_stack()


def test_a_source_checkout_on_the_path_passes(install, monkeypatch):
    install()
    monkeypatch.setattr(stack, 'is_importable', lambda package: True)
    stack.check_stack()


def test_registry_raises_the_error_of_the_check(tmp_path):
    """With a second stack in sight, in a fresh process."""
    other = {stack.ONEDL: 'mmdet', stack.OPENMMLAB: 'onedl-mmdetection'}
    name = other[stack.find_installed()[0].stack]
    folder = tmp_path / f'{name.replace("-", "_")}-3.3.0.dist-info'
    folder.mkdir()
    (folder / 'METADATA').write_text(f'Name: {name}\nVersion: 3.3.0\n')
    code = f'import sys; sys.path.insert(0, {str(tmp_path)!r})\n'
    code += 'import mmattn.registry'
    result = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True
    )
    assert 'ImportError: packages of both stacks' in result.stderr


def test_the_check_imports_neither_torch_nor_a_stack():
    code = (
        'import sys; from mmattn.stack import check_stack; check_stack(); '
        "sys.exit(bool({'torch', 'numpy', 'mmengine'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, '-c', code], check=True)


@pytest.mark.parametrize(
    'version, minimum, expected',
    [
        ('2.0.1', '2.0.1', False),
        ('2.0.0', '2.0.1', True),
        ('2.0.1rc4', '2.0.1', False),
        ('2.10.0+cu130', '2.9', False),
        ('', '1', True),
    ],
)
def test_is_older(version, minimum, expected):
    assert stack.is_older(version, minimum) is expected


@pytest.mark.parametrize('name', list(stack.PINS))
def test_commands_name_the_pins_of_the_environment(name):
    pins = {}
    for file in (REQUIREMENTS / name.lower()).glob('*.txt'):
        for line in file.read_text().splitlines():
            if '==' in line and not line.startswith('#'):
                package, version = line.split(';')[0].split('==')
                pins[package] = version.strip()
    for pin in stack.PINS[name].values():
        package, version = pin.split('==')
        assert version == pins[package]
    for package in ('torch', 'torchvision'):
        pin = f'{package}=={pins[package]}'
        assert pin in stack.TORCH_COMMANDS[name].split()
