"""Fixtures that several test modules share."""

import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

TESTS = Path(__file__).parent
PACKAGED = ('configs', 'mmattn', 'requirements', 'tools')
BUILD = (
    'import sys; from setuptools import build_meta; '
    'print(getattr(build_meta, "build_" + sys.argv[1])(sys.argv[2]))'
)
sys.path[:0] = [str(TESTS / 'golden'), str(TESTS)]
# Tools that a test loads import their neighbour. Behind Python's own `test`.
sys.path.append(str(TESTS.parent / 'tools'))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def golden_case():
    """Read one case of ``tests/golden`` by its name."""
    import golden

    def load(name):
        case = golden.load_case(TESTS / 'golden' / f'{name}.npz')
        golden.check_rng(case)
        return case

    return load


@pytest.fixture
def process_group(tmp_path):
    """A gloo process group of this process alone."""
    dist.init_process_group(
        'gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1
    )
    yield
    dist.destroy_process_group()


@pytest.fixture
def compiler():
    """Skip where torch.compile and torch.export are too young for us."""
    if not hasattr(torch.compiler, 'is_compiling'):
        pytest.skip('torch.compile of whole graphs needs torch 2.3')


@pytest.fixture
def compiler_for_all_sizes():
    """Skip where a compiler cannot be asked whether sizes vary."""
    from mmattn.ops import tracing

    if not tracing._KNOWS_DYNAMIC_SHAPES:
        pytest.skip('one graph for all sizes needs torch 2.9')


@pytest.fixture
def stubs_supported():
    """Skip where files that hold more than tensors cannot be read."""
    if not hasattr(torch.serialization, 'safe_globals'):
        pytest.skip('files that hold more than tensors need torch 2.5')


@pytest.fixture(params=[torch.bfloat16, torch.float16], ids=str)
def half(request):
    """A half-precision type that autocast takes on this machine."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('error', UserWarning)  # torch before 2.3
            with torch.autocast('cpu', request.param):
                pass
    except (RuntimeError, UserWarning) as error:
        pytest.skip(str(error))
    return request.param


@pytest.fixture
def kept_bytes():
    """Count the bytes that a call saves for its backward pass."""
    from mmattn.analysis import saved_activations

    return saved_activations


@pytest.fixture(scope='session')
def few_digits(tmp_path_factory):
    """Digit scenes of 16 and 8 small images: ``.../data/digit_scenes``."""
    from mmattn.datasets import DigitSceneSpec, digit_folder, make_digit_folder
    from mmattn.datasets.digit_glyphs import load_digit_pools

    root = tmp_path_factory.mktemp('digits') / 'data' / 'digit_scenes'

    def load_few(seed):
        return tuple(
            type(pool)(*(field[:70] for field in pool))
            for pool in load_digit_pools(seed)
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digit_folder, 'load_digit_pools', load_few)
        make_digit_folder(root, DigitSceneSpec(0, 16, 8, 64))
    return root


@pytest.fixture(scope='session')
def build_distribution():
    """Build as pip does, in an environment that has setuptools already."""

    def build(kind, checkout, target):
        target.mkdir(exist_ok=True)
        result = subprocess.run(
            [sys.executable, '-c', BUILD, kind, str(target)],
            cwd=checkout,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        return target / result.stdout.splitlines()[-1]

    return build


@pytest.fixture(scope='session')
def checkout(tmp_path_factory):
    """A copy of the checkout, so that builds leave this one alone."""
    root = TESTS.parent
    copy = tmp_path_factory.mktemp('packaging') / 'checkout'
    ignore = shutil.ignore_patterns('__pycache__', '.mim')
    for name in PACKAGED:
        shutil.copytree(root / name, copy / name, ignore=ignore)
    for file in root.iterdir():
        if file.is_file():
            shutil.copy2(file, copy / file.name)
    return copy


@pytest.fixture(scope='session')
def wheel(checkout, build_distribution):
    """The wheel of this checkout."""
    return build_distribution('wheel', checkout, checkout.parent / 'wheel')


@pytest.fixture(scope='session')
def installed(wheel):
    """A folder for the module path into which pip installed the wheel."""
    target = wheel.parent.parent / 'site'
    install = ['-m', 'pip', 'install', '--no-deps', '--quiet']
    subprocess.run(
        [sys.executable, *install, '--target', str(target), str(wheel)],
        check=True,
        cwd=wheel.parent,
    )
    return target


@pytest.fixture(autouse=True)
def _restore_checkpoint_loading():
    """Undo what tools that run in this process set for all of it."""
    name = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'
    value = os.environ.get(name)
    engine = sys.modules.get('mmengine.runner.checkpoint')
    schemes = engine and dict(engine.CheckpointLoader._schemes)
    yield
    os.environ.pop(name, None)
    if value is not None:
        os.environ[name] = value
    if engine:
        engine.CheckpointLoader._schemes = schemes
