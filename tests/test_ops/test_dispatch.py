import re
from pathlib import Path

import pytest
import torch

from mmattn.ops import (
    attention,
    choose_implementation,
    definitions_first,
    force_implementation,
    forced_implementations,
    implementations,
    list_implementations,
    register_implementation,
    watch_choices,
)


@pytest.fixture
def table(monkeypatch):
    """The table, with what a test adds to it taken out again."""
    copy = {name: dict(rows) for name, rows in implementations._TABLE.items()}
    monkeypatch.setattr(implementations, '_TABLE', copy)
    return copy


def q_k_v():
    return torch.randn(3, 2, 4, 5)


def names(operation):
    return [
        row.name
        for row in list_implementations()
        if row.operation == operation
    ]


def test_every_operation_has_a_reference():
    operations = {row.operation for row in list_implementations()}
    assert operations >= {
        'attention',
        'balanced_clusters',
        'cluster_attention',
        'window_attention',
    }
    for operation in operations:
        assert 'reference' in names(operation)


def test_rows_are_listed_by_operation_best_first(table):
    keys = [(row.operation, -row.priority) for row in list_implementations()]
    assert keys == sorted(keys)
    assert names('attention') == ['sdpa', 'reference']
    assert all(row.needs for row in list_implementations())


def test_own_implementation(table):

    @register_implementation('attention', 'mean', needs='patience')
    def mean(q, k, v, bias, scale):
        return v.mean(dim=-2, keepdim=True).expand(*q.shape[:-1], -1)

    q, k, v = q_k_v()
    want = v.mean(dim=-2, keepdim=True).expand(-1, 4, -1)
    assert torch.equal(attention(q, k, v, impl='mean'), want)
    assert 'mean' in names('attention')
    # Of the lowest priority, it is not what auto takes.
    assert not torch.allclose(attention(q, k, v), want)


def test_added_row_is_gone_again():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(
            implementations._TABLE,
            'attention',
            dict(implementations._TABLE['attention']),
        )
        register_implementation('attention', 'extra')(lambda *args: args)
        assert 'extra' in names('attention')
    assert 'extra' not in names('attention')


def test_auto_takes_the_best_that_can_run(table):
    register_implementation(
        'attention', 'absent', priority=99, missing=lambda: 'no such package'
    )(lambda *args: 'absent')
    register_implementation(
        'attention',
        'picky',
        priority=98,
        refuses=lambda q, *args: 'few' if q.shape[-2] < 9 else None,
    )(lambda *args: 'picky')
    q, k, v = q_k_v()
    taken = []
    with watch_choices(lambda row: taken.append(row.name)):
        attention(q, k, v)
        assert attention(q.repeat(1, 3, 1), k, v) == 'picky'
        attention(q, k, v, impl='reference')
    assert attention(q.repeat(1, 3, 1), k, v) == 'picky'
    assert taken == ['sdpa', 'picky', 'reference']


def test_auto_takes_what_is_forced(monkeypatch):
    monkeypatch.setattr(implementations, '_FORCED', {})
    q, k, v = q_k_v()
    taken = []
    with watch_choices(lambda row: taken.append(row.name)):
        for name in ('reference', 'auto'):
            force_implementation('attention', name)
            attention(q, k, v)
            attention(q, k, v, impl='sdpa')
    assert taken == ['reference', 'sdpa', 'sdpa', 'sdpa']


@pytest.mark.parametrize(
    'operation, name, known',
    [
        ('attention', 'paper', r"\['auto', 'sdpa', 'reference'\]"),
        ('folding', 'auto', r"\{'attention': \['auto', 'sdpa'"),
    ],
)
def test_unknown_names_cannot_be_forced(operation, name, known):
    with pytest.raises(ValueError, match=f'there are {known}'):
        force_implementation(operation, name)


def test_forced_implementation_never_falls_back(table):
    register_implementation(
        'attention', 'absent', missing=lambda: 'it needs triton'
    )(lambda *args: args)
    register_implementation(
        'attention', 'picky', refuses=lambda *args: 'it takes CUDA tensors'
    )(lambda *args: args)
    with pytest.raises(RuntimeError) as error:
        attention(*q_k_v(), impl='absent')
    assert str(error.value) == (
        "attention cannot run impl 'absent': it needs triton"
    )
    with pytest.raises(RuntimeError) as error:
        attention(*q_k_v(), impl='picky')
    assert str(error.value) == (
        "attention cannot run impl 'picky': it takes CUDA tensors"
    )


def test_nothing_can_run(table):
    register_implementation(
        'folding', 'reference', missing=lambda: 'no paper'
    )(lambda: None)
    with pytest.raises(
        RuntimeError, match='folding has no implementation that can run'
    ):
        choose_implementation('folding', 'auto')


def test_unknown_name_lists_the_names():
    with pytest.raises(ValueError) as error:
        attention(*q_k_v(), impl='flash')
    assert str(error.value) == (
        "attention expects impl 'auto' or one of ['reference', 'sdpa'], got "
        "'flash'"
    )


@pytest.mark.parametrize('name', ['sdpa', 'auto'])
def test_name_that_is_taken(table, name):
    with pytest.raises(ValueError) as error:
        register_implementation('attention', name)(lambda *args: args)
    assert str(error.value) == (
        'register_implementation expects a new name for attention, got '
        f"{name!r}; taken: 'auto', 'sdpa', 'reference'"
    )
    assert names('attention') == ['sdpa', 'reference']


def test_operation_that_does_not_exist(table):
    with pytest.raises(ValueError) as error:
        register_implementation('atention', 'mine')(lambda *args: args)
    assert str(error.value).startswith(
        'register_implementation expects an operation that has a definition, '
        "got 'atention'; there are attention, balanced_clusters, "
    )
    assert 'atention' not in table


@pytest.mark.parametrize('priority', ['high', None, float('nan')])
def test_priority_that_is_no_number(table, priority):
    with pytest.raises(TypeError) as error:
        register_implementation('attention', 'mine', priority=priority)(
            lambda *args: args
        )
    assert str(error.value) == (
        'register_implementation expects a number as priority of attention '
        f"'mine', got {priority!r}"
    )
    register_implementation('attention', 'next')(lambda *args: args)
    assert names('attention') == ['sdpa', 'reference', 'next']


def test_own_operation(table):
    register_implementation('folding', 'reference')(lambda x: x)
    register_implementation('folding', 'paper', priority=0.5)(lambda x: -x)
    assert choose_implementation('folding', 'auto', 1).function(1) == -1
    assert names('folding') == ['paper', 'reference']


def test_definitions_first_for_a_while():
    q = torch.rand(1, 1, 3, 4)
    args = (q, q, q, None, 1.0)

    def chosen(impl='auto'):
        return choose_implementation('attention', impl, *args).name

    usual = chosen()
    assert usual != 'reference'
    with pytest.raises(KeyError), definitions_first():
        assert chosen() == 'reference'
        assert chosen('sdpa') == 'sdpa'
        raise KeyError
    assert chosen() == usual


def test_what_was_forced_before_comes_back(monkeypatch):
    monkeypatch.setattr(implementations, '_FORCED', {})
    force_implementation('attention', 'reference')
    q, k, v = q_k_v()
    taken = []
    with watch_choices(lambda row: taken.append(row.name)):
        with forced_implementations(dict(attention='sdpa')):
            attention(q, k, v)
        attention(q, k, v)
        with pytest.raises(ValueError, match='force_implementation expects'):
            with forced_implementations(dict(attention='auto', folding='no')):
                pass
        attention(q, k, v)
    assert taken == ['sdpa', 'reference', 'reference']


def test_the_page_registers_in_five_lines(table):
    root = Path(__file__).parents[2]
    page = (root / 'docs' / 'implementations.md').read_text()
    (code,) = re.findall(
        r'```python\n(from mmattn.ops import.*?)```', page, re.DOTALL
    )
    assert len([line for line in code.splitlines() if line]) <= 5
    exec(code, {})
    q, k, v = q_k_v()
    want = v.mean(dim=-2, keepdim=True).expand(-1, 4, -1)
    assert torch.equal(attention(q, k, v, impl='mean'), want)


def test_the_page_names_every_row_in_order():
    root = Path(__file__).parents[2]
    page = (root / 'docs' / 'implementations.md').read_text()
    shown = {}
    for operations, rows in re.findall(r'^\| (`.+?) \| (`.+?) \|', page, re.M):
        for operation in re.findall(r'`(\w+)`', operations):
            shown[operation] = re.findall(r'`(\w+)`', rows)
    listed = {}
    for row in list_implementations():
        listed.setdefault(row.operation, []).append(row.name)
    assert shown == listed
