"""Files that are no usable checkpoints end in one line, soon, in little memory.

Each reader runs in a forked process, with a limit of CPU time and a look at
its peak memory for each file.
"""

import contextlib
import importlib.util
import io
import json
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import hostile_files
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from torch import nn

from mmattn.backbones import BOATSwin
from mmattn.checkpoints import BackbonePretrained, convert, load_file
from mmattn.checkpoints.completeness import missing_names
from mmattn.checkpoints.loading import read_whole
from mmattn.checkpoints.publishing import read_training
from mmattn.cli.resume import find_newest, set_resume
from mmattn.cli.usage import run_command
from mmattn.cli.weights import CheckWeights, load_verified, verify_checkpoints
from mmattn.errors import UsageError
from mmattn.visualization.attention import read_picture
from mmattn.visualization.curves import plot_curves, read_scalars
from mmattn.zoo import find_model

pytestmark = pytest.mark.slow
TOOLS = Path(__file__).resolve().parents[1] / 'tools'
CONFIG = 'boat-swin-nano_1xb32-25e_digits'
SECONDS = 5  # of CPU time
MEMORY = 96 << 20  # bytes, beside three times the file
REFUSED = (ValueError, OSError, UsageError)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = BOATSwin('nano')
        self.head = nn.Linear(2, 2)


def run_tool(name: str, *words: object) -> None:
    """Run the tool in this process; a usage error is a UsageError."""
    path = TOOLS / f'{name}.py'
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.argv = [str(word) for word in (path, *words)]
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            run_command(module.main)
    except SystemExit as error:
        assert error.code == 2, error.code
        raise UsageError(errors.getvalue()) from None


def load_and_convert(path: Path) -> None:
    state = load_file(path, allow_nonfinite=True)
    missing_names(convert(state, strict=False))


def initialize(path: Path) -> None:
    backbone = BOATSwin('nano')
    BackbonePretrained(str(path), strict=False, min_loaded=0)(backbone)


def load_for_engine(path: Path) -> None:
    checkpoint = load_verified(str(path), 'cpu')
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
    find_newest([folder])
    link.unlink()


def convert_checkpoint(path: Path) -> None:
    out = path.parent / 'out'
    out.write_bytes(b'of hours')
    try:
        run_tool('convert_checkpoint', path, out, '--skip-unknown')
    finally:
        assert out.read_bytes() == b'of hours'


def publish(path: Path) -> None:
    zoo = path.parent / 'published'
    words = '--config', CONFIG, '--name', 'mine', '--zoo', zoo
    run_tool('publish_model', path, *words)
    assert not zoo.exists()


def visualize(path: Path) -> None:
    image = path.parent / 'image.png'
    words = '--backbone', 'boat-swin-nano', '--checkpoint', path
    run_tool('visualize_attention', image, *words)


def swap(path: Path) -> None:
    words = '--backbone', 'boat-swin-nano', '--checkpoint', path
    run_tool('swap_backbone', CONFIG, path.parent / 'swapped.py', *words)


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
    'test': lambda path: run_tool('test', CONFIG, path),
    'train': lambda path: run_tool('train', CONFIG, '--load-from', path),
    'resume_training': lambda path: run_tool(
        'train', CONFIG, '--resume', path
    ),
}


def memory(field: str) -> int:
    """Bytes of memory of this process, such as ``VmRSS``."""
    text = Path('/proc/self/status').read_text()
    return 1024 * int(re.search(rf'{field}:\s+(\d+)', text)[1])


def problem_of(read: Callable, path: Path) -> str | None:
    """Read a file and return what is wrong with how that ends."""
    content = path.read_bytes()
    Path('/proc/self/clear_refs').write_text('5')  # resets the peak
    before, start = memory('VmRSS'), time.process_time()
    problem = None
    try:
        read(path)
    except REFUSED as error:
        text = str(error)
        if not text.replace('\n', '').isprintable() or len(text) > 3000:
            problem = f'message: {text[:500]!r}'
    except BaseException as error:
        problem = f'traceback: {type(error).__name__}: {str(error)[:300]}'
    seconds = time.process_time() - start
    peak = memory('VmHWM') - before
    if peak > 3 * len(content) + MEMORY:
        problem = f'{problem or ""} {peak >> 20} MiB'
    if seconds > SECONDS:
        problem = f'{problem or ""} {seconds:.1f} s'
    if path.read_bytes() != content:
        problem = 'the file was changed'
    return problem


def run_forked(read: Callable, paths: list[Path], log: Path) -> dict[str, str]:
    """Read files in a forked process and return the problems by file."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
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
                print(path.name, end='\t', file=file)
                print(problem_of(read, path), file=file)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    lines = [line.split('\t') for line in log.read_text().splitlines()]
    if status != 0:
        lines[-1][-1] = f'ended with status {status}'
    assert status or len(lines) == len(paths)
    return {name: text for name, text in lines if text != 'None'}


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp('hostile')
    paths = hostile_files.write_checkpoints(folder)
    assert len(paths) >= 500
    return paths


@pytest.mark.parametrize('reader', LIBRARY)
def test_checkpoints(files, reader, tmp_path):
    assert run_forked(LIBRARY[reader], files, tmp_path / 'log') == {}
