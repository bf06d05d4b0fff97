"""The text of a swapped config."""

from pathlib import Path

import pytest
from mmengine.config import Config

from mmattn.swapping import writing
from mmattn.swapping.edits import Edit, apply_edits
from mmattn.swapping.source import read_source
from mmattn.swapping.unsupported import SwapError
from mmattn.swapping.writing import render_value, write_config

BASE = """
default_scope = 'mmdet'
model = dict(
    type='X',
    neck=[dict(type='A', in_channels=[1, 2], more=dict(x=1)), dict(type='B')],
    head=None,
    backbone=dict(type='Old', depth=50))
"""


@pytest.fixture
def source(tmp_path):
    path = tmp_path / 'base.py'
    path.write_text(BASE)
    return read_source(str(path))


EDITS = [
    Edit(
        ('model', 'backbone'), dict(type='New', arch='tiny'), 'A reason. ' * 20
    ),
    Edit(('model', 'neck', 0, 'in_channels'), [3, 4], 'In a list.'),
    Edit(('model', 'neck', 0, 'more', 'x'), 2),
    Edit(('model', 'head'), dict(type='Pool')),
    Edit(('model', 'init_cfg'), None),
    Edit(('wrapper', 'keys', 'a.b'), dict(decay=0.0), 'No name.'),
    Edit(('wrapper', 'betas'), (0.9,)),
    Edit(('wrapper', 'numbers'), list(range(100, 140))),
]


def test_text_reads_back_as_planned(source, tmp_path):
    out = tmp_path / 'new' / 'swapped.py'
    write_config(source, EDITS, out, '# head\n', force=False)
    config = Config.fromfile(out)
    wanted = apply_edits(source.config, EDITS)
    for key in wanted:
        assert config[key] == wanted[key], key
    assert config.model.backbone == dict(type='New', arch='tiny')
    text = out.read_text()
    assert text.startswith('# head\n')
    assert text.count('# In a list.') == 1
    assert max(map(len, text.splitlines())) <= 79
    assert [p.name for p in out.parent.iterdir()] == ['swapped.py']


def test_unreadable_text_is_not_kept(source, tmp_path):
    # A callable cannot be written.
    edits = [Edit(('model', 'backbone', 'depth'), Path('x'))]
    with pytest.raises(NameError):
        write_config(source, edits, tmp_path / 'new.py', '', force=False)
    assert [p.name for p in tmp_path.iterdir()] == ['base.py']


def test_text_that_reads_back_differently_is_an_error(
    source, tmp_path, monkeypatch
):
    monkeypatch.setattr(writing, 'render_config', lambda *_: BASE)
    with pytest.raises(SwapError, match='model'):
        write_config(source, EDITS, tmp_path / 'new.py', '', force=False)
    assert not (tmp_path / 'new.py').exists()


def test_values_are_rendered_as_code():
    value = {
        'named': dict(numbers=list(range(30)), single=(1,), empty=[]),
        'a.b': [dict(c='d' * 50), None],
    }
    assert eval(render_value(value)) == value
    assert render_value(dict(a=(1, 2))) == 'dict(a=(1, 2))'
