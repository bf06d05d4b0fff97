"""Find the installed OpenMMLab stack and check that mmattn supports it.

Two families of distributions carry the same import packages. Only package
metadata is read, which takes milliseconds and imports nothing.
"""

import importlib.util
import re
from importlib import metadata
from typing import NamedTuple

ONEDL = 'OneDL'
OPENMMLAB = 'OpenMMLab'
CODEBASES = ('mmdet', 'mmseg', 'mmpretrain')

# stack -> import package -> what install commands name
PINS: dict[str, dict[str, str]] = {
    ONEDL: {
        'mmengine': 'onedl-mmengine==0.10.12',
        'mmcv': 'onedl-mmcv==2.3.6',
        'mmdet': 'onedl-mmdetection==3.5.1',
        'mmseg': 'onedl-mmsegmentation==1.4.2',
        'mmpretrain': 'onedl-mmpretrain==1.3.6',
    },
    OPENMMLAB: {
        'mmengine': 'mmengine==0.10.7',
        'mmcv': 'mmcv==2.1.0',
        'mmdet': 'mmdet==3.3.0',
        'mmseg': 'mmsegmentation==1.2.2',
        'mmpretrain': 'mmpretrain==1.2.0',
    },
}
LITE = {OPENMMLAB: {'mmengine': 'mmengine-lite', 'mmcv': 'mmcv-lite'}}

# Older mmengine fails on torch >= 2.5, older mmcv has another layout. There
# is no upper bound: most newer releases work.
MINIMUM_VERSIONS: dict[str, str] = {
    'mmengine': '0.10.6',
    'mmcv': '2.0.1',
    'mmdet': '3.0.0',
    'mmseg': '1.0.0',
    'mmpretrain': '1.0.0',
}
REQUIRED = ('mmengine', 'mmcv')

TORCH_COMMANDS: dict[str, str] = {
    ONEDL: 'pip install torch==2.11.0 torchvision==0.26.0',
    OPENMMLAB: "pip install torch==2.1.2 torchvision==0.16.2 'numpy<2'",
}
# Needed to compile mmcv; wheel 0.46 needs setuptools >= 70.1.
BUILD_TOOLS: dict[str, str] = {
    ONEDL: "ninja packaging psutil wheel 'setuptools>=80,<82'",
    OPENMMLAB: "ninja packaging psutil 'wheel<0.46' 'setuptools<70'",
}


class Installed(NamedTuple):
    """One installed distribution of a stack."""

    stack: str
    package: str
    distribution: str
    version: str


def find_installed() -> list[Installed]:
    """List the distributions of both stacks that are installed."""
    return [
        Installed(stack, package, name.partition('==')[0], version)
        for stack, pins in PINS.items()
        for names in (pins, LITE.get(stack, {}))
        for package, name in names.items()
        if (version := distribution_version(name.partition('==')[0]))
    ]


def distribution_version(distribution: str) -> str | None:
    """Return the version of an installed distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def install_command(stack: str, *packages: str) -> str:
    """The command that installs packages of a stack beside torch."""
    pins = ' '.join(PINS[stack][package] for package in packages)
    if 'mmcv' not in packages:
        return f'pip install {pins}'
    return (
        f'pip install {BUILD_TOOLS[stack]} && '
        f'pip install --no-build-isolation {pins}'
    )


def is_older(version: str, minimum: str) -> bool:
    """Whether ``version`` comes before ``minimum``, by release numbers."""
    found, least = (
        [int(n) for n in re.split(r'[^\d.]', x)[0].split('.') if n]
        for x in (version, minimum)
    )
    return found < least


def check_stack() -> None:
    """Check that one supported stack is installed.

    Source checkouts on the path without package metadata are accepted.

    Raises:
        ImportError: If mmengine or mmcv is missing or too old, or if
            packages of both stacks are installed side by side.
    """
    installed = find_installed()
    names = ' '.join(item.distribution for item in installed)
    if len({item.stack for item in installed}) > 1:
        raise ImportError(
            f'packages of both stacks are installed side by side ({names}) '
            "and overwrite each other's files; remove them and install one "
            f'stack: pip uninstall -y {names}'
        )
    versions = {item.package: item.version for item in installed}
    if all(
        not is_older(versions[package], MINIMUM_VERSIONS[package])
        if package in versions
        else is_importable(package)
        for package in REQUIRED
    ):
        return
    found = ', '.join(f'{i.distribution} {i.version}' for i in installed)
    expected = ' and '.join(f'{p}>={MINIMUM_VERSIONS[p]}' for p in REQUIRED)
    lines = [
        f'mmattn needs {expected}, got {found or "neither"}; install one of '
        'the two stacks, never both:',
        *(
            f'  {stack}: {command} && {install_command(stack, *REQUIRED)}'
            for stack, command in TORCH_COMMANDS.items()
        ),
    ]
    raise ImportError('\n'.join(lines))


def is_importable(package: str) -> bool:
    """Whether a package is on the path, installed or not."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):  # blocked, or a stub in sys.modules
        return False
