"""Hostile files end in one line, soon, and in memory that their size bounds.

Each reader runs in a forked process, with a limit of CPU time and a look at
its peak memory for each file.
"""

import contextlib
import io
import json
import os
import re
import resource
import signal
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace

import hostile_files
import pytest
import torch
from forked import load_tool, run_tool
from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from PIL import Image
from torch import nn

from mmattn import codebase_hooks
from mmattn.backbones import BOATSwin
from mmattn.checkpoints import BackbonePretrained, convert, load_file
from mmattn.checkpoints.completeness import missing_names
from mmattn.checkpoints.loading import read_whole
from mmattn.checkpoints.publishing import read_training
from mmattn.cli.resume import find_newest, set_resume
from mmattn.cli.weights import (
    CheckWeights,
    load_from_verified,
    verify_checkpoints,
)
from mmattn.errors import UsageError
from mmattn.zoo import find_model

CONFIG = 'boat-swin-nano_1xb32-25e_digits'
SECONDS = 5  # of CPU time
MEMORY = 96 << 20  # bytes, for the model
PICTURE = 900 << 20  # of the largest image allowed, as it is converted
RUNNERS = ('test', 'train', 'resume_training')  # take seconds if it loads
SLOW = pytest.mark.slow
REFUSED = (ValueError, OSError, UsageError)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = BOATSwin('nano')
        self.head = nn.Linear(2, 2)


def run(tool: str, *words: object) -> None:
    """Run a tool; a usage error is a UsageError."""
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            run_tool(tool, *words)
    except SystemExit as error:
        text = errors.getvalue()
        assert error.code == 2 and not text.startswith('usage'), text
        raise UsageError(text) from None


def load_and_convert(path: Path) -> None:
    state = load_file(path, allow_nonfinite=True)
    missing_names(convert(state, strict=False))


def initialize(path: Path) -> None:
    backbone = BOATSwin('nano')
    BackbonePretrained(str(path), strict=False, min_loaded=0)(backbone)


def load_for_engine(path: Path) -> None:
    checkpoint = load_from_verified(str(path), 'cpu')
    hook = CheckWeights(str(path), whole=True)
    hook.after_load_checkpoint(SimpleNamespace(model=Model()), checkpoint)


def load_from_zoo(path: Path) -> None:
    zoo = path.parent / 'zoo'
    zoo.mkdir(exist_ok=True)
    (zoo / 'model-index.yml').write_text('Import: [metafile.yml]')
    weights = json.dumps(str(path))
    (zoo / 'metafile.yml').write_text(
        f'Models: [{{Name: mine, Config: mine.py, Weights: {weights}}}]'
    )
    os.environ['MMATTN_ZOO'] = str(zoo)
    CheckpointLoader.load_checkpoint('mmattn://mine')


def resume(path: Path) -> None:
    set_resume(Config(dict(work_dir='.')), str(path), False)


def resume_newest(path: Path) -> None:
    folder = path.parent / 'work_dir'
    folder.mkdir(exist_ok=True)
    link = folder / path.with_suffix('.pth').name
    link.symlink_to(path)
    try:
        find_newest([folder])
    finally:
        link.unlink()


def convert_checkpoint(path: Path) -> None:
    out = path.parent / 'out'
    out.write_bytes(b'of hours')
    try:
        run('convert_checkpoint', path, out, '--skip-unknown')
    finally:
        assert out.read_bytes() == b'of hours'


def publish(path: Path) -> None:
    zoo = path.parent / 'published'
    words = '--config', CONFIG, '--name', 'mine', '--zoo', zoo
    run('publish_model', path, *words)
    assert not zoo.exists()


def visualize(path: Path) -> None:
    image = path.parent / 'image.png'
    words = '--backbone', 'boat-swin-nano', '--checkpoint', path
    run('visualize_attention', image, *words)


def draw(path: Path) -> None:
    words = '--backbone', 'boat-swin-nano', '--stages', 0, '--blocks', 0
    run('visualize_attention', path, *words)


def swap(path: Path) -> None:
    words = '--backbone', 'boat-swin-nano', '--checkpoint', path
    config = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'
    run('swap_backbone', config, '--out', path.parent / 'out.py', *words)


LIBRARY = {
    'load_file': load_file,
    'convert': load_and_convert,
    'read_whole': read_whole,
    'read_training': read_training,
    'init_cfg': initialize,
    'engine': load_for_engine,
    'zoo': load_from_zoo,
    'resume': resume,
    'newest': resume_newest,
}
TOOL = {
    'convert_checkpoint': convert_checkpoint,
    'publish_model': publish,
    'visualize_attention': visualize,
    'swap_backbone': swap,
    'test': lambda path: run('test', CONFIG, path),
    'train': lambda path: run('train', CONFIG, '--load-from', path),
    'resume_training': lambda path: run('train', CONFIG, '--resume', path),
}


def read_metafile(path: Path) -> None:
    from mmpretrain.apis import model

    zoo = path.parent / 'zoo'
    zoo.mkdir(exist_ok=True)
    os.environ['MMATTN_ZOO'] = str(zoo)
    for file in ('metafile.yml', 'model-index.yml'):
        (zoo / 'model-index.yml').write_text('Import: [metafile.yml]')
        (zoo / file).write_bytes(path.read_bytes())
        with contextlib.suppress(ValueError, OSError):
            find_model('nothing')
        # A broken zoo must not break the import of mmpretrain.
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            codebase_hooks.register_classifiers(model)


def read_metrics(path: Path) -> None:
    load_tool('publish_model').read_metrics(path)


TEXTS = {'metafile': read_metafile, 'metrics': read_metrics}


def memory(field: str) -> int:
    """Bytes of memory of this process, such as ``VmRSS``."""
    text = Path('/proc/self/status').read_text()
    return 1024 * int(re.search(rf'{field}:\s+(\d+)', text)[1])


def problem_of(read: Callable, path: Path, extra: int) -> str | None:
    """Read a file and return what is wrong with how that ends."""
    content = path.read_bytes()
    Path('/proc/self/clear_refs').write_text('5')  # resets the peak
    before, start = memory('VmRSS'), time.process_time()
    problem = None
    try:
        read(path)
        if path.suffix in ('.pth', '.safetensors'):
            if not hostile_files.HARMLESS.match(path.name):
                problem = 'was accepted'
    except REFUSED as error:
        text = str(error)
        if not text.replace('\n', '').isprintable() or len(text) > 3000:
            problem = f'message: {text[:500]!r}'
    except BaseException as error:
        problem = f'traceback: {type(error).__name__}: {str(error)[:300]}'
    seconds = time.process_time() - start
    peak = memory('VmHWM') - before
    if peak > 3 * len(content) + extra:
        problem = f'{problem or ""} {peak >> 20} MiB'
    if seconds > SECONDS:
        problem = f'{problem or ""} {seconds:.1f} s'
    if path.read_bytes() != content:
        problem = 'the file was changed'
    return problem


def run_forked(
    read: Callable, paths: list[Path], log: Path, extra: int = MEMORY
) -> dict[str, str]:
    """Read files in a forked process and return the problems by file.

    Args:
        read: Reads a file.
        paths: The files.
        log: Where the problems are written.
        extra: Bytes of memory allowed beside three times the file.
    """
    log.write_text('')
    child = os.fork()
    if child == 0:
        try:
            read_all(read, paths, log, extra)
            os._exit(0)
        except BaseException as error:
            log.write_text(f'{error!r}\n')
        finally:
            os._exit(70)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    lines = [line.split('\t') for line in log.read_text().splitlines()]
    if status != 0:
        lines[-1].append(f'ended with status {status}')
    assert status or len(lines) == len(paths)
    return {line[0]: line[-1] for line in lines if line[-1] != 'None'}


def read_all(read: Callable, paths: list[Path], log: Path, extra: int) -> None:
    """Read files in this process, which a signal may end."""
    os.chdir(log.parent)
    torch.set_num_threads(1)
    verify_checkpoints()
    number = os.open(os.devnull, os.O_WRONLY)
    os.dup2(number, 1)
    os.dup2(number, 2)
    size = memory('VmSize') + (4 << 30)
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    with log.open('w', buffering=1) as file:
        for path in paths:
            # Signals end the process, also one that is inside of C.
            signal.setitimer(signal.ITIMER_PROF, 4 * SECONDS)
            signal.alarm(120)
            print(path.name, end='\t', file=file, flush=True)
            print(problem_of(read, path, extra), file=file)


@pytest.fixture(scope='module')
def folder(tmp_path_factory, few_digits):
    """A folder with data, an image and good weights."""
    folder = tmp_path_factory.mktemp('hostile')
    (folder / 'data').symlink_to(few_digits.parent)
    Image.new('RGB', (64, 64)).save(folder / 'image.png')
    return folder


@pytest.fixture(scope='module')
def files(folder):
    paths = hostile_files.write_checkpoints(folder)
    assert len(paths) >= 500
    return paths


@pytest.mark.parametrize('step', [12, pytest.param(1, marks=SLOW)])
@pytest.mark.parametrize('reader', LIBRARY)
def test_checkpoints(folder, files, reader, step):
    log = folder / 'log'
    assert run_forked(LIBRARY[reader], files[::step], log) == {}


@SLOW
@pytest.mark.parametrize('tool', TOOL)
def test_checkpoints_of_tools(folder, files, tool):
    some = files[:: 20 if tool in RUNNERS else 10]
    extra = 3 * MEMORY  # also for what the tool imports
    assert run_forked(TOOL[tool], some, folder / 'log', extra) == {}
    assert not list(folder.glob('work_dirs/*/*.pth'))


@pytest.mark.parametrize('reader', TEXTS)
def test_texts(folder, reader):
    paths = write(folder, hostile_files.texts())
    assert run_forked(TEXTS[reader], paths, folder / 'log') == {}
    assert not (folder / 'owned').exists()


def test_images(folder):
    paths = write(folder, hostile_files.pictures())
    assert run_forked(draw, paths, folder / 'log', PICTURE) == {}


def write(folder: Path, contents: Iterable[tuple[str, bytes]]) -> list[Path]:
    paths = []
    for name, content in contents:
        paths.append(folder / name)
        paths[-1].write_bytes(content)
    return paths
