"""Names of a command line, and the models behind them."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmattn.analysis.subjects import read_subject, read_subjects
from mmattn.backbones import BOATSwin
from mmattn.errors import UsageError

SIZE = (64, 64)


def maps_of(name, outputs='last', size=SIZE):
    model = read_subject(name, outputs).build(size)
    model.eval()  # returns nothing in a class of mmpretrain
    with torch.no_grad():
        return [tuple(out.shape) for out in model(torch.rand(1, 3, *size))]


@pytest.mark.parametrize(
    'name',
    [
        'boat-swin-nano',
        "mmattn.BOATSwin(arch='nano')",
        'configs/boat_swin/boat-swin-nano_1xb32-25e_digits.py',
    ],
)
def test_the_last_map_or_all(name):
    assert maps_of(name) == [(1, 192, 2, 2)]
    assert maps_of(name, 'all') == [
        (1, 24, 16, 16),
        (1, 48, 8, 8),
        (1, 96, 4, 4),
        (1, 192, 2, 2),
    ]


def test_arguments_change_the_model():
    name = 'boat-swin-nano(out_indices=(1,), in_channels=3)'
    assert maps_of(name) == [(1, 48, 8, 8)]


def test_an_implementation_for_all_operations():
    assert read_subject('boat-swin-nano').impl is None
    subject = read_subject("boat-swin-nano(impl='reference')")
    assert subject.impl == 'reference'
    assert isinstance(subject.build(SIZE), BOATSwin)
    with pytest.raises(ValueError, match=r"\['cpp'.*\], got 'none'"):
        read_subject("boat-swin-nano(impl='none')")


@pytest.mark.parametrize(
    'name',
    [
        'mmpretrain:swin-tiny_16xb64_in1k',
        'mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py',
    ],
)
def test_a_config_of_a_codebase(name):
    pytest.importorskip('mmpretrain')
    small = (
        "(arch={'embed_dims': 8, 'depths': [1, 1, 1, 1], "
        "'num_heads': [1, 1, 1, 1]}, pad_small_map=True)"
    )
    assert maps_of(name + small) == [(1, 64, 2, 2)]


def test_timm_leaves_the_head_out():
    pytest.importorskip('timm')
    small = '(depths=(1, 1, 1, 1), embed_dim=12)'
    name = 'timm:swin_tiny_patch4_window7_224' + small
    model = read_subject(name).build((64, 96)).eval()
    assert model(torch.rand(1, 3, 64, 96)).shape == (1, 2, 3, 96)
    assert len(maps_of(name, 'all')) == 4
    # This one has no img_size.
    model = read_subject('timm:test_resnet').build((64, 96)).eval()
    assert model(torch.rand(1, 3, 64, 96)).ndim == 4


def test_without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, 'timm', None)
    with pytest.raises(ImportError, match=r"pip install 'mmattn\[tests\]'"):
        read_subject('timm:swin_tiny_patch4_window7_224')


def test_an_unknown_name_of_timm(monkeypatch):
    names = ['swin_tiny', 'swin_large']
    timm = SimpleNamespace(is_model=names.count, list_models=lambda: names)
    monkeypatch.setitem(sys.modules, 'timm', timm)
    with pytest.raises(ValueError, match="'swin_tinny'; close to it: swin_ti"):
        read_subject('timm:swin_tinny')


@pytest.fixture
def published(tmp_path):
    """A package and a script beside it, as a clone has them."""
    package = tmp_path / 'some_published_models'
    package.mkdir()
    (package / '__init__.py').write_text('')
    (package / 'parts.py').write_text('CHANNELS = 5\n')
    (package / 'net.py').write_text(
        'from torch import nn\n'
        'from .parts import CHANNELS\n\n\n'
        'class Net(nn.Sequential):\n'
        '    def __init__(self, side=1):\n'
        '        super().__init__(nn.Conv2d(3, CHANNELS, side))\n\n\n'
        'def number():\n'
        '    return 3\n'
    )
    yield package / 'net.py'
    for name in [n for n in sys.modules if n.startswith(package.name)]:
        del sys.modules[name]
    sys.path.remove(str(tmp_path))


def test_a_class_in_a_file(published):
    model = read_subject(f'{published}:Net(side=3)').build(SIZE)
    assert isinstance(model, nn.Module)
    assert model(torch.rand(1, 3, 8, 8)).shape == (1, 5, 6, 6)
    with pytest.raises(ValueError, match='to define Nothing, got no such'):
        read_subject(f'{published}:Nothing')
    number = read_subject(f'{published}:number')
    with pytest.raises(TypeError, match='make a torch.nn.Module, got int'):
        number.build(SIZE)


@pytest.mark.parametrize(
    'name, error, message',
    [
        ('boat-swin-tinny', ValueError, 'known archs are boat-swin-tiny'),
        ('mmattn.BOATS', ValueError, 'mmattn.BOATS is expected in the regis'),
        ('none.py', UsageError, "config file, got 'none.py', which does not"),
        ('none.py:Net', FileNotFoundError, 'expects a file none.py, which'),
        ('swin-nano(3)', ValueError, r'expected as NAME\(key=value, ...\)'),
        ('swin-nano(a=b)', ValueError, r'expected as NAME\(key=value, ...\)'),
        ('swin-nano(**{})', ValueError, r'expected as NAME\(key=value, ...\)'),
        ('swin-nano(a=1', ValueError, r'expected as NAME\(key=value, ...\)'),
        (
            'smt-nano(in_chanels=1)',
            ValueError,
            'SMT expects arguments that it knows, got in_chanels; close to '
            'it: in_channels$',
        ),
        (
            'mmattn.CSWin(in_chanels=1)',
            ValueError,
            'CSWin expects arguments that it knows, got in_chanels; close to',
        ),
        ('smt-nano(x=1)', ValueError, 'got x; it takes: arch, in_channels, '),
    ],
)
def test_names_that_mean_nothing(name, error, message):
    with pytest.raises(error, match=message):
        read_subject(name)


def test_arguments_that_a_class_of_a_file_does_not_know(published):
    with published.open('a') as file:
        file.write('\n\ndef any_net(**more):\n    return Net(**more)\n')
    with pytest.raises(ValueError, match='Net expects arg.* got sides; close'):
        read_subject(f'{published}:Net(sides=3)')
    subject = read_subject(f'{published}:any_net(sides=3)')
    with pytest.raises(ValueError, match=r'got sides \(Net.__init__\(\) got'):
        subject.build(SIZE)


def test_an_unknown_config_of_a_codebase():
    pytest.importorskip('mmpretrain')
    with pytest.raises(FileNotFoundError, match='swin-tiny_16xb64_in1k'):
        read_subject('mmpretrain:swin-tinny_16xb64_in1k')


def test_a_model_beside_itself():
    names = [s.name for s in read_subjects(['swin-nano'] * 3, 'last')]
    assert names == ['swin-nano', 'swin-nano #2', 'swin-nano #3']
