"""The report of ``python -m mmattn``: what is installed and what to fix.

Functions import torch and the stack: a broken installation is reported too.
"""

import argparse
import importlib
import platform
import sys
import warnings
from pathlib import Path
from types import ModuleType

import mmattn
from mmattn import stack

OPENCV_COMMAND = (
    'pip uninstall -y opencv-python && pip install --force-reinstall '
    '--no-deps opencv-python-headless'
)
Problems = dict[str, str]  # what is wrong: the command that fixes it
Rows = list[tuple[str, str]]


def main(argv: list[str] | None = None) -> int:
    """Print the report; return 1 if something has to be fixed, else 0."""
    parser = argparse.ArgumentParser('python -m mmattn')
    parser.add_argument(
        '--all',
        action='store_true',
        help='list all implementations and the whole environment',
    )
    show_all = parser.parse_args(argv).all
    warnings.simplefilter('ignore')
    problems: Problems = {}
    name = next((item.stack for item in stack.find_installed()), stack.ONEDL)
    print(f'mmattn {mmattn.__version__}, {Path(mmattn.__file__).parent}')
    print(f'python {platform.python_version()}, {sys.executable}')
    rows = report_torch(name, problems) + report_stack(name, problems)
    rows += report_operations(show_all)
    if show_all and stack.is_importable('mmengine') and not problems:
        from mmengine.utils.dl_utils import collect_env

        rows += [(key, f'{value}') for key, value in collect_env().items()]
    for label, value in rows:
        print(f'{label:25} {value}')
    for problem, command in problems.items():
        print(f'! {problem}\n    {command}')
    print('Run these commands.' if problems else 'No problems found.')
    return 1 if problems else 0


def try_import(
    name: str, problems: Problems, command: str
) -> ModuleType | None:
    """Import a module; record the problem and how to fix it if that fails."""
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever the code of a package raises
        text = str(error) or repr(error)
        missing = getattr(error, 'name', None) or name
        if 'libGL' in text or missing == 'cv2':  # headless needs no libGL
            command = OPENCV_COMMAND
        elif isinstance(error, ModuleNotFoundError) and missing != name:
            command = f'pip install {missing.partition(".")[0]}'
        problems[f'{name} does not import: {text}'] = command
        return None


def report_torch(name: str, problems: Problems) -> Rows:
    """The versions of torch and its companions, and the device."""
    packages = ('torch', 'torchvision', 'numpy', 'triton')
    versions = {
        package: stack.distribution_version(package) or 'not installed'
        for package in packages
    }
    if name == stack.OPENMMLAB and not stack.is_older(versions['numpy'], '2'):
        problem = f'numpy {versions["numpy"]}, but {name} needs numpy<2'
        problems[problem] = "pip install 'numpy<2'"
    command = f'{stack.TORCH_COMMANDS[name]} --force-reinstall'
    torch = try_import('torch', problems, command)
    try_import('torchvision', problems, command)
    device = 'unknown'
    if torch is not None and torch.cuda.is_available():
        count = range(torch.cuda.device_count())
        device = ', '.join(torch.cuda.get_device_name(i) for i in count)
    elif torch is not None:
        device = f'CPU, threads: {torch.get_num_threads()}; torch sees no GPU'
    rows = [
        (', '.join(pair), ', '.join(versions[package] for package in pair))
        for pair in (packages[:2], packages[2:])
    ]
    return [*rows, ('device', device)]


def report_stack(name: str, problems: Problems) -> Rows:
    """The packages of the stack, and whether mmcv is compiled."""
    installed = stack.find_installed()
    if len({item.stack for item in installed}) > 1:
        names = ' '.join(item.distribution for item in installed)
        command = stack.install_command(name, *stack.REQUIRED)
        problems[f'both stacks are installed: {names}'] = (
            f'pip uninstall -y {names} && {command}'
        )
        return []
    versions = {item.package: item.version for item in installed}
    rows = [('stack', name if installed else 'none')]
    for package in stack.PINS[name]:
        version = versions.get(package, 'unknown version')
        minimum = stack.MINIMUM_VERSIONS[package]
        command = stack.install_command(name, package)
        if package not in versions and not stack.is_importable(package):
            version = 'not installed'
            if package in stack.REQUIRED:
                problems[f'{package} is not installed'] = command
        elif package in versions and stack.is_older(version, minimum):
            problems[f'{package} {version} is older than {minimum}'] = command
        else:
            command += ' --no-deps --no-cache-dir --force-reinstall'
            try_import(package, problems, command)
            # Only mmdet and mmseg need the compiled part of mmcv.
            if package == 'mmcv' and {'mmdet', 'mmseg'} & set(versions):
                ops = try_import('mmcv.ops', problems, command)
                cuda = ops and ops.get_compiling_cuda_version()
                version += f', compiled for CUDA: {cuda}'
        rows.append((f'  {package}', version))
    return rows


def report_operations(show_all: bool) -> Rows:
    """The implementations of each operation that this machine can run."""
    try:
        from mmattn.ops import list_implementations
        from mmattn.ops._native import KERNELS
    except ImportError as error:
        return [('mmattn.ops', f'does not import: {error}')]
    rows = [('C++ kernels', KERNELS.why_not() or 'compiled')]
    names: dict[str, list[str]] = {}
    for item in list_implementations():
        if show_all:
            text = 'needs' if item.is_available() else 'cannot run, needs'
            text = f'{item.name}: {text} {item.requires}'
            rows.append((item.operation, text))
        elif item.is_available():
            names.setdefault(item.operation, []).append(item.name)
    return rows + [(key, ', '.join(found)) for key, found in names.items()]
