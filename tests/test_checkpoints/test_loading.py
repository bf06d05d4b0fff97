"""Reading checkpoints without executing code from them."""

import argparse
import functools
import http.server
import os
import pickle
import subprocess
import sys
import threading
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from mmattn.checkpoints import load_file, save_file
from mmattn.checkpoints.loading import read_whole
from mmattn.checkpoints.unpickling import InvalidCheckpoint
from mmattn.zoo import file_digest

STATE = {'a.weight': torch.arange(6.0).reshape(2, 3), 'a.bias': torch.ones(2)}


def saved(path, content, **kwargs):
    torch.save(content, path, **kwargs)
    return path


def check_equal(state, expected=STATE):
    assert list(state) == list(expected)
    for name in expected:
        assert torch.equal(state[name], expected[name]), name


@pytest.mark.parametrize('name', ['a.pth', 'a.pt', 'a.pth.tar', 'a'])
def test_a_bare_state_dict(tmp_path, name):
    check_equal(load_file(saved(tmp_path / name, STATE)))


def test_the_legacy_format(tmp_path):
    path = saved(
        tmp_path / 'a.pth', STATE, _use_new_zipfile_serialization=False
    )
    check_equal(load_file(path))


def test_safetensors(tmp_path):
    save_file(STATE, tmp_path / 'a.safetensors')
    state = load_file(tmp_path / 'a.safetensors')
    check_equal(dict(sorted(state.items(), reverse=True)))


@pytest.mark.parametrize(
    'wrapper', ['model', 'state_dict', 'state_dict_ema', 'model_ema']
)
def test_training_checkpoints_are_unwrapped(tmp_path, wrapper):
    path = saved(tmp_path / 'a.pth', {wrapper: STATE, 'epoch': 3})
    check_equal(load_file(path))


@pytest.mark.parametrize(
    'plain, average',
    [('state_dict', 'state_dict_ema'), ('model', 'model_ema')],
)
def test_averaged_weights_come_first(tmp_path, plain, average):
    other = {name: -value for name, value in STATE.items()}
    path = saved(tmp_path / 'a.pth', {plain: other, average: STATE})
    check_equal(load_file(path))


def test_a_tensor_may_be_called_model(tmp_path):
    state = {'model': torch.ones(2), 'b': torch.zeros(1)}
    check_equal(load_file(saved(tmp_path / 'a.pth', state)), state)


@pytest.mark.parametrize(
    'prefix', ['module.', '_orig_mod.', 'module._orig_mod.']
)
def test_prefixes_of_wrappers_are_stripped(tmp_path, prefix):
    state = {prefix + name: value for name, value in STATE.items()}
    check_equal(load_file(saved(tmp_path / 'a.pth', state)))


def test_a_prefix_of_some_names_stays(tmp_path):
    state = {'module.a': torch.ones(1), 'b': torch.ones(1)}
    check_equal(load_file(saved(tmp_path / 'a.pth', state)), state)


def test_parameters_become_tensors_and_numbers_are_dropped(tmp_path):
    layer = torch.nn.Linear(3, 2)
    content = dict(layer.named_parameters(), epoch=3)
    state = load_file(saved(tmp_path / 'a.pth', content))
    assert list(state) == ['weight', 'bias']
    assert type(state['weight']) is torch.Tensor
    assert not state['weight'].requires_grad


@pytest.mark.usefixtures('stubs_supported')
def test_other_content_of_training_checkpoints(tmp_path):
    log = HistoryBuffer([1.0, 0.5], [1, 1])
    content = dict(
        state_dict=STATE,
        message_hub=dict(log_scalars=OrderedDict(loss=log)),
        args=argparse.Namespace(lr=1e-3, size=[224, 224]),
        best=np.float64(81.3),
        curve=np.arange(4),
        optimizer=dict(state={}, param_groups=[dict(lr=0.1)]),
    )
    check_equal(load_file(saved(tmp_path / 'a.pth', content)))


def test_a_torch_without_safe_globals(tmp_path, monkeypatch):
    monkeypatch.delattr(torch.serialization, 'safe_globals', raising=False)
    path = saved(tmp_path / 'a.pth', dict(args=argparse.Namespace(), **STATE))
    with pytest.raises(ValueError, match='Namespace.* torch 2.5'):
        load_file(path)


@pytest.mark.usefixtures('stubs_supported')
def test_names_of_numpy_1(tmp_path):
    # numpy 1 wrote the same pickle with another module name.
    content = dict(model=STATE, best=np.float64(81.3))
    path = saved(
        tmp_path / 'a.pth', content, _use_new_zipfile_serialization=False
    )
    data = path.read_bytes()
    other = data.replace(b'numpy._core.', b'numpy.core.')
    assert other != data or np.__version__ < '2'
    path.write_bytes(other)
    check_equal(load_file(path))


CFG_NODE = """
import sys, torch
from types import ModuleType

class CfgNode(dict):
    pass

module = ModuleType('yacs.config')
CfgNode.__module__, module.CfgNode = 'yacs.config', CfgNode
sys.modules['yacs'] = ModuleType('yacs')
sys.modules['yacs.config'] = module
config = CfgNode(DATA=CfgNode(IMG_SIZE=224), TAG='default')
config.__dict__['__immutable__'] = True
torch.save(dict(model=dict(a=torch.ones(2)), config=config), sys.argv[1])
"""


@pytest.mark.usefixtures('stubs_supported')
def test_the_config_node_of_published_trainers(tmp_path):
    path = tmp_path / 'a.pth'
    subprocess.run([sys.executable, '-c', CFG_NODE, path], check=True)
    check_equal(load_file(path), dict(a=torch.ones(2)))


class Call:
    """Pickles as a function call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize(
    'function, template, name',
    [
        (os.system, 'touch {}', r'(posix|nt)\.system'),
        (eval, "open({!r}, 'w').close()", r'(__builtin__\.)?eval'),
        (exec, "open({!r}, 'w').close()", r'(__builtin__\.)?exec'),
        (os.mkdir, '{}', r'(posix|nt)\.mkdir'),
        (open, '{}', r'\S*open'),
    ],
)
def test_a_file_that_runs_code_is_refused(
    tmp_path, function, template, name, zipped
):
    trace = tmp_path / 'trace'
    call = Call(function, template.format(str(trace)))
    content = dict(state_dict=STATE, extra=call)
    path = saved(
        tmp_path / 'a.pth', content, _use_new_zipfile_serialization=zipped
    )
    with pytest.raises(ValueError, match=name):
        load_file(path)
    assert not trace.exists()


@pytest.mark.usefixtures('stubs_supported')
def test_getattr_reaches_nothing(tmp_path):
    # mmengine's checkpoints use getattr; its stub must not be callable.
    method = Call(getattr, HistoryBuffer, 'register_statistics')
    content = dict(state_dict=STATE, extra=method)
    check_equal(load_file(saved(tmp_path / 'a.pth', content)))

    class Nested:
        def __reduce__(self):
            return method, ('x',)

    # torch.save needs a callable there, reading must reject it.
    Call.__call__ = lambda self, *args: None
    try:
        path = saved(tmp_path / 'b.pth', dict(state_dict=STATE, x=Nested()))
    finally:
        del Call.__call__
    with pytest.raises(ValueError, match='asks to call'):
        load_file(path)


def test_a_whole_pickled_module_is_refused(tmp_path):
    path = saved(tmp_path / 'a.pth', torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match='torch.nn.modules.linear'):
        load_file(path)


def test_a_forced_unsafe_load_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    trace = tmp_path / 'trace'
    content = dict(state_dict=STATE, extra=Call(os.mkdir, str(trace)))
    with pytest.raises(ValueError, match='any code'):
        load_file(saved(tmp_path / 'a.pth', content))
    assert not trace.exists()


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('part', [0.3, 0.7, 0.999])
def test_a_truncated_file(tmp_path, zipped, part):
    path = saved(
        tmp_path / 'a.pth', STATE, _use_new_zipfile_serialization=zipped
    )
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(ValueError, match='truncated'):
        load_file(path)


def archive_of_something_else(path):
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('readme.txt', 'nothing here')


def program(path):
    torch.jit.save(torch.jit.trace(torch.nn.ReLU(), torch.ones(1)), path)


@pytest.mark.parametrize(
    'write, message',
    [
        (lambda p: p.write_bytes(b''), 'is empty'),
        (
            lambda p: p.write_text('version https://git-lfs.github.com\n'),
            'git-lfs',
        ),
        (
            lambda p: p.write_bytes(bytes(range(256)) * 9),
            'damaged',
        ),
        (
            lambda p: p.write_bytes(pickle.dumps({'a': 1}, protocol=5)),
            'opcode',
        ),
        (archive_of_something_else, 'zip archive'),
        (program, 'TorchScript'),
        (lambda p: torch.save([1, 2], p), 'list'),
        (
            lambda p: torch.save({'epoch': 3, 'lr': 0.1}, p),
            "'epoch', 'lr'",
        ),
        (lambda p: torch.save({}, p), 'no tensors'),
    ],
)
def test_files_that_are_not_checkpoints(tmp_path, write, message):
    path = tmp_path / 'a.pth'
    write(path)
    with pytest.raises(ValueError, match=rf'a\.pth.*{message}'):
        load_file(path)


@pytest.mark.skipif(
    not hasattr(torch, 'uint16'), reason='older torch cannot save bits'
)
def test_dtypes_that_torch_cannot_use(tmp_path):
    bits = torch.zeros(4, dtype=torch.uint8).view(torch.bits8)
    torch.save({'a': bits}, tmp_path / 'a.pth')
    for read in (load_file, read_whole):
        with pytest.raises(ValueError, match=r'a\.pth holds .*torch\.bits8'):
            read(tmp_path / 'a.pth')


def test_a_damaged_safetensors_file(tmp_path):
    path = tmp_path / 'a.safetensors'
    save_file(STATE, path)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match='not a safetensors file'):
        load_file(path)


def test_safetensors_is_not_installed(tmp_path, monkeypatch):
    save_file(STATE, tmp_path / 'a.safetensors')
    monkeypatch.setitem(sys.modules, 'safetensors', None)
    with pytest.raises(ImportError, match='pip install safetensors'):
        load_file(tmp_path / 'a.safetensors')


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'no\.pth does not exist'):
        load_file(tmp_path / 'no.pth')
    with pytest.raises(FileNotFoundError, match='folder'):
        load_file(tmp_path)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def address(tmp_path, monkeypatch):
    """Address of a local server, and the folder it serves."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    monkeypatch.setenv('no_proxy', '*')
    folder = tmp_path / 'served'
    folder.mkdir()
    handler = functools.partial(QuietHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}', folder
    server.shutdown()
    server.server_close()


def test_a_download_is_kept(tmp_path, address):
    url, folder = address
    served = saved(folder / 'a.pth', STATE)
    check_equal(load_file(f'{url}/a.pth'))
    (kept,) = (tmp_path / 'cache' / 'hub' / 'checkpoints').iterdir()
    assert kept.name.startswith('a-') and kept.suffix == '.pth'
    assert kept.read_bytes() == served.read_bytes()
    served.unlink()
    check_equal(load_file(f'{url}/a.pth'))


def test_downloads_with_the_same_name(address):
    url, folder = address
    for name, value in (('x', 1.0), ('y', 2.0)):
        (folder / name).mkdir()
        torch.save({'a': torch.tensor(value)}, folder / name / 'a.pth')
    got = [load_file(f'{url}/{name}/a.pth')['a'] for name in ('x', 'y')]
    assert got == [1.0, 2.0]


def test_a_failed_download(tmp_path, address):
    with pytest.raises(ConnectionError, match='404'):
        load_file(f'{address[0]}/b.pth')
    assert not list((tmp_path / 'cache').rglob('*.pth'))


def test_the_digest_in_a_name_is_checked(tmp_path):
    path = saved(tmp_path / 'a.pth', STATE)
    named = path.rename(tmp_path / f'a-{file_digest(path)}.pth')
    check_equal(load_file(named))
    saved(named, {'a': torch.zeros(1)})
    with pytest.raises(ValueError, match='mismatch'):
        load_file(named)


def test_the_digest_in_an_address_is_checked(tmp_path, address):
    url, folder = address
    path = saved(folder / 'a.pth', STATE)
    named = path.rename(folder / f'a-{file_digest(path)}.pth')
    good = named.read_bytes()
    saved(named, {'a': torch.zeros(1)})
    with pytest.raises(ValueError, match='mismatch'):
        load_file(f'{url}/{named.name}')
    assert not list((tmp_path / 'cache').rglob('*.pth'))
    named.write_bytes(good)
    for _ in range(2):  # downloaded, then cached
        check_equal(load_file(f'{url}/{named.name}'))


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """The weights file of a model in a local zoo."""
    monkeypatch.setenv('MMATTN_ZOO', str(tmp_path))
    (tmp_path / 'model-index.yml').write_text('Import: [metafile.yml]')
    path = tmp_path / 'mine.pth'
    (tmp_path / 'metafile.yml').write_text(
        'Models: [{Name: mine, Config: mine.py, Weights: mine.pth}]'
    )
    return path


def test_published_weights_by_name(zoo):
    meta = dict(dataset_meta=dict(classes=('0', '1')))
    saved(zoo, dict(state_dict=STATE, meta=meta))
    check_equal(load_file('mmattn://mine'))
    whole = read_whole('mmattn://mine')
    assert whole['meta'] == meta
    check_equal(whole['state_dict'])


def test_mmengine_loads_published_weights_safely(zoo):
    from mmengine.runner.checkpoint import CheckpointLoader

    saved(zoo, dict(state_dict=STATE))
    load = CheckpointLoader.load_checkpoint
    check_equal(load('mmattn://mine')['state_dict'])
    saved(zoo, dict(state_dict=STATE, evil=Path))
    with pytest.raises(ValueError, match='any code'):
        load('mmattn://mine')


def test_messages_do_not_obey_the_file(tmp_path):
    path = tmp_path / 'escape.pth'
    torch.save({'a\x1b[2Jb': torch.ones(1)}, path)
    with pytest.raises(ValueError) as error:
        load_file(path)
    assert str(error.value).isprintable()
    assert r'a\x1b[2Jb' in str(error.value)
    message = str(InvalidCheckpoint('names the class \x1b[2J'))
    assert message.isprintable() and r'\x1b[2J' in message
