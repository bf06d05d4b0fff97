"""What ``python -m mmattn`` reports about an installation.

Every probe returns findings; one with a remedy is missing or broken. Torch
and the stack are imported inside the probes, so that the report comes out
whatever is absent.
"""

import importlib
import platform
import sys
from pathlib import Path
from typing import NamedTuple

import mmattn
from mmattn.stack import (
    DISTRIBUTIONS,
    MINIMUM_VERSIONS,
    ONEDL,
    OPENMMLAB,
    REQUIRED,
    TORCH_COMMANDS,
    Installed,
    distribution_version,
    find_installed,
    install_command,
    is_importable,
    is_older,
)

# onedl-mmcv compiles as C++17: torch >= 2.14 wants C++20.
MMCV_TORCH_RANGE = ('2.4', '2.14')
OPENCV_COMMAND = (
    'pip uninstall -y opencv-python && pip install --force-reinstall '
    '--no-deps opencv-python-headless'
)


class Finding(NamedTuple):
    """One line of the report.

    Attributes:
        label: What it is about.
        value: What was found.
        remedy: The command that mends it, where it has to be mended.
        loss: What is lost, where models run nevertheless.
    """

    label: str
    value: str
    remedy: str = ''
    loss: str = ''


def main() -> int:
    """Print the report; 0 when nothing is missing or broken, otherwise 1."""
    sections = diagnose()
    for title, findings in sections.items():
        print(title)
        width = max((len(finding.label) for finding in findings), default=0)
        for finding in findings:
            mark = '!' if finding.remedy else ' '
            print(f' {mark} {finding.label:{width}}  {finding.value}')
    findings = [f for section in sections.values() for f in section]
    to_mend = [f for f in findings if f.remedy]
    if not to_mend:
        losses = [f'Models run, {f.loss}.' for f in findings if f.loss]
        print('\n'.join(losses or ['All is well.']))
        return 0
    print('To mend')
    for finding in to_mend:
        print(f' ! {finding.label}:\n     {finding.remedy}')
    return 1


def diagnose() -> dict[str, list[Finding]]:
    """All findings, by the title of their section."""
    stack = find_stack()
    return {
        f'mmattn {mmattn.__version__}': probe_mmattn(),
        'torch': probe_torch(stack),
        f'stack: {stack or "none"}': probe_stack(stack),
        'operations': probe_operations(),
    }


def find_stack() -> str | None:
    """The installed stack; None for none, or for both side by side."""
    stacks = {item.stack for item in find_installed()}
    return stacks.pop() if len(stacks) == 1 else None


def probe_mmattn() -> list[Finding]:
    return [
        Finding('path', str(Path(mmattn.__file__).parent)),
        Finding('python', f'{platform.python_version()} ({sys.executable})'),
    ]


def probe_torch(stack: str | None) -> list[Finding]:
    """torch, what has to fit it, and the device it computes on."""
    findings = [
        _probe_import('torch', stack),
        # A torchvision of another build fails only when it is imported.
        _probe_import('torchvision', stack),
        _probe_numpy(stack),
        Finding('triton', distribution_version('triton') or 'not installed'),
    ]
    if not findings[0].remedy:
        findings.append(Finding('device', _describe_device()))
    return findings


def _probe_import(module: str, stack: str | None) -> Finding:
    command = TORCH_COMMANDS[stack or ONEDL]
    if not is_importable(module):
        return Finding(module, 'not installed', command)
    try:
        return Finding(module, importlib.import_module(module).__version__)
    except Exception as error:  # whatever the code of a package raises
        value = f'does not import: {error}'
        return Finding(module, value, f'{command} --force-reinstall')


def _probe_numpy(stack: str | None) -> Finding:
    version = distribution_version('numpy')
    if version is None:
        return Finding('numpy', 'not installed', 'pip install numpy')
    if stack == OPENMMLAB and not is_older(version, '2'):
        value = f'{version}, but the {OPENMMLAB} stack expects numpy<2'
        return Finding('numpy', value, "pip install 'numpy<2'")
    return Finding('numpy', version)


def _describe_device() -> str:
    import torch

    if not torch.cuda.is_available():
        return f'CPU, {torch.get_num_threads()} threads; torch sees no GPU'
    count = torch.cuda.device_count()
    names = {torch.cuda.get_device_name(i) for i in range(count)}
    return f'{count} x {", ".join(sorted(names))}, CUDA {torch.version.cuda}'


def probe_stack(stack: str | None) -> list[Finding]:
    """The packages of the stack, imported, and the compiled half of mmcv."""
    installed = find_installed()
    if installed and stack is None:
        names = ' '.join(item.distribution for item in installed)
        mend = f'pip uninstall -y {names} && {_install_required(ONEDL)}'
        return [Finding('side by side', names, mend)]
    stack = stack or ONEDL
    packages = {item.package: item for item in installed}
    findings = [
        _probe_package(stack, package, packages.get(package))
        for package in DISTRIBUTIONS[stack]
    ]
    if 'mmcv' in packages:
        is_needed = 'mmdet' in packages or 'mmseg' in packages
        findings.append(_probe_mmcv_ops(packages['mmcv'], is_needed))
    return findings


def _install_required(stack: str) -> str:
    return install_command(stack, *REQUIRED)


def _probe_package(
    stack: str, package: str, installed: Installed | None
) -> Finding:
    command = install_command(stack, package)
    if installed is not None:
        value = f'{installed.distribution} {installed.version}'
        minimum = MINIMUM_VERSIONS[package]
        if is_older(installed.version, minimum):
            value += f', but mmattn expects >={minimum}'
            return Finding(package, value, command)
        return _probe_package_import(stack, package, value)
    if is_importable(package):
        value = 'on the path, of unknown version'
        return _probe_package_import(stack, package, value)
    if package in REQUIRED:
        return Finding(package, 'not installed', command)
    return Finding(package, f'not installed; for its configs: {command}')


def _probe_package_import(stack: str, package: str, value: str) -> Finding:
    # A codebase refuses an mmcv that is too new for it only when imported.
    try:
        importlib.import_module(package)
    except Exception as error:  # whatever the code of a package raises
        value += f', but does not import: {str(error) or repr(error)}'
        return Finding(package, value, _mend_import(stack, package, error))
    return Finding(package, value)


def _mend_import(stack: str, package: str, error: Exception) -> str:
    """The command that mends what the error of an import tells."""
    text = str(error)
    missing = getattr(error, 'name', None) or ''
    # opencv-python draws windows; headless does without their libraries.
    if 'libGL' in text or missing == 'cv2':
        return OPENCV_COMMAND
    blamed = next((p for p in DISTRIBUTIONS[stack] if p in text.lower()), None)
    if isinstance(error, ModuleNotFoundError) and missing and not blamed:
        return f'pip install {missing.partition(".")[0]}'
    blamed = blamed or package
    if blamed == 'mmcv':
        return _rebuild_mmcv(stack)
    return f'{install_command(stack, blamed)} --no-deps --force-reinstall'


def _probe_mmcv_ops(mmcv: Installed, is_needed: bool) -> Finding:
    remedy = _rebuild_mmcv(mmcv.stack)
    try:
        import torch

        cuda = importlib.import_module('mmcv.ops').get_compiling_cuda_version()
    except Exception as error:  # whatever the code of a package raises
        value = f'do not import: {error}'
        if 'libGL' in str(error):
            remedy = OPENCV_COMMAND
    else:
        if cuda != 'not available':
            return Finding('mmcv.ops', f'compiled for CUDA {cuda}')
        if not torch.cuda.is_available():
            return Finding('mmcv.ops', 'compiled for the CPU')
        value = 'compiled for the CPU, though torch sees a GPU (needs nvcc)'
    if not is_needed:
        return Finding('mmcv.ops', f'{value}; only mmdet and mmseg need them')
    return Finding('mmcv.ops', value, remedy)


def _rebuild_mmcv(stack: str) -> str:
    """The command that compiles mmcv anew, for a torch that it fits."""
    build = install_command(stack, 'mmcv').replace(
        '--no-build-isolation',
        '--no-build-isolation --no-cache-dir --no-deps --force-reinstall',
    )
    torch = distribution_version('torch') or ''
    oldest, too_new = MMCV_TORCH_RANGE
    fits = not is_older(torch, oldest) and is_older(torch, too_new)
    if stack == ONEDL and not fits:
        return f'{TORCH_COMMANDS[stack]} && {build}'
    return build


def probe_operations() -> list[Finding]:
    """Which implementations of each operation can run on this machine."""
    try:
        from mmattn.ops import list_implementations
        from mmattn.ops.cpu_kernels import why_no_kernels
    except ImportError as error:
        return [Finding('mmattn.ops', f'does not import: {error}')]
    except ValueError as error:  # of the environment
        value = f'does not import: {error}'
        return [Finding('mmattn.ops', value, 'unset MMATTN_CPU_KERNELS')]
    no_kernels = why_no_kernels()
    findings = [_describe_kernels(no_kernels)]
    for row in list_implementations():
        reason = row.missing()
        if row.name == 'cpp':  # a row asks for no compilation by itself
            reason = reason or no_kernels
        state = f'cannot run: {reason}' if reason else f'needs {row.needs}'
        findings.append(Finding(row.operation, f'{row.name:12}{state}'))
    return findings


def _describe_kernels(reason: str | None) -> Finding:
    """The kernels in C++, or why there are none."""
    from mmattn.ops.cpu_kernels import how_to_mend, why_kernels_are_lost

    label = 'kernels in C++'
    if not reason:
        return Finding(label, 'compiled for this CPU')
    loss = (
        'slower than they could on a CPU: attention, clustering, linear '
        "layers, convolutions and norms take the next row after 'cpp'; "
    )
    if why_kernels_are_lost():
        loss += f'to mend it, {how_to_mend()}'
    else:
        loss += reason
    return Finding(label, f'none: {reason}', loss=loss)
