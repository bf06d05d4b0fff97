"""Build mmattn, with configs, tools and model index where MIM finds them."""

import os
import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools < 70.1, which builds mmcv 2.1.0
    from wheel.bdist_wheel import bdist_wheel

ROOT = Path(__file__).resolve().parent
MIM_FILES = ('configs', 'tools', 'model-index.yml')


class BuildWithMim(build_py):
    """Put the MIM files under ``mmattn/.mim``.

    A build copies them into its own folder. The checkout keeps the links
    that are in git; an editable install makes the same links.
    """

    def run(self) -> None:
        super().run()
        folder = ROOT if self.editable_mode else Path(self.build_lib)
        mim = folder / 'mmattn' / '.mim'
        shutil.rmtree(mim, ignore_errors=True)
        if not self.editable_mode:
            copy_mim_files(mim)
            return
        mim.mkdir(parents=True)
        for name in MIM_FILES:
            (mim / name).symlink_to(os.path.relpath(ROOT / name, mim))


class WheelWithMim(bdist_wheel):
    """Put the MIM files beside the metadata too, for onedl-mim 0.5.

    It expects the package in the folder of the first installed file, which
    is the folder of the metadata: `mmattn-` sorts before `mmattn/`.
    """

    def egg2dist(self, egginfo_path: str, distinfo_path: str) -> None:
        super().egg2dist(egginfo_path, distinfo_path)
        copy_mim_files(Path(distinfo_path) / '.mim')


def copy_mim_files(folder: Path) -> None:
    ignore = shutil.ignore_patterns('__pycache__', '*.py[cod]')
    folder.mkdir(parents=True)
    for name in MIM_FILES:
        source, target = ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=ignore)
        else:
            shutil.copy2(source, target)


def read_version() -> str:
    text = (ROOT / 'mmattn' / '__init__.py').read_text(encoding='utf-8')
    return re.search(r"^__version__ = '(.+)'$", text, re.MULTILINE)[1]


setup(
    name='mmattn',
    version=read_version(),
    description='Attention backbones and modules for the OpenMMLab ecosystem',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author='mmattn contributors',
    license='Apache-2.0',
    license_files=['LICENSE'],
    classifiers=[
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Programming Language :: Python :: 3.14',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
    packages=find_packages(include=['mmattn', 'mmattn.*']),
    package_data={'mmattn': ['**/*.cpp', '**/*.h']},
    python_requires='>=3.10',
    # Neither stack: they have the same import names and must never be
    # installed side by side (mmattn/stack.py checks at run time).
    install_requires=[
        'matplotlib>=3.6',  # layout='compressed'
        'numpy',
        'pillow>=9.3',  # ExifTags.Base
        'pyyaml',
        'safetensors',
        'scikit-learn',
        'scipy',
        'torch>=2.1',
    ],
    extras_require={
        'onedl': [
            'onedl-mmengine>=0.10.12',
            'onedl-mmcv>=2.3.6',
            'onedl-mmdetection>=3.5.1',
            'onedl-mmsegmentation>=1.4.2',
            'onedl-mmpretrain>=1.3.6',
        ],
        'openmmlab': [
            'mmengine>=0.10.6',
            'mmcv>=2.1.0,<2.2',  # mmdet 3.3 refuses 2.2
            'mmdet>=3.3.0',
            'mmsegmentation>=1.2.2',
            'mmpretrain>=1.2.0',
            'ftfy',  # imported by mmsegmentation, which does not ask for it
            'numpy<2',
        ],
        'export': ['onnxruntime', 'onnxscript', 'openvino'],
        'tests': [
            'hypothesis',
            'pre-commit',
            'pytest',
            'pytest-timeout',
            'pytest-xdist',
            'ruff',
            'timm',
        ],
    },
    cmdclass={'bdist_wheel': WheelWithMim, 'build_py': BuildWithMim},
    zip_safe=False,
)
