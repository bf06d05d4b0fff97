"""The table of implementations, and the choice among them."""

import re
from pathlib import Path

import pytest
import torch

from mmattn.ops import (
    Implementation,
    attention,
    balanced_clusters,
    cluster_attention,
    dispatch,
    force_implementation,
    forced_implementations,
    list_implementations,
    mixed_convolution,
    reference_only,
    register_implementation,
    watch_choices,
)

PAGE = Path(__file__).parents[2] / 'docs' / 'implementations.md'


@pytest.fixture(autouse=True)
def table(monkeypatch):
    """The table, with what a test adds to it taken out again."""
    copy = {name: dict(known) for name, known in dispatch._TABLE.items()}
    monkeypatch.setattr(dispatch, '_TABLE', copy)
    monkeypatch.setattr(dispatch, '_BY_DEVICE', dict(dispatch._BY_DEVICE))
    monkeypatch.setattr(dispatch, '_FORCED', {})
    return copy


def q_k_v():
    return torch.randn(3, 2, 4, 5)


def names(operation):
    return [x.name for x in list_implementations() if x.operation == operation]


def chosen_by(call, *args, **options):
    """Names of what a call takes."""
    taken = []
    with watch_choices(lambda x: taken.append(x.name)):
        call(*args, **options)
    return taken


def test_every_operation_has_a_reference():
    operations = {x.operation for x in list_implementations()}
    assert operations == {
        'attention',
        'balanced_clusters',
        'cluster_attention',
        'cross_shaped_attention',
        'mixed_convolution',
        'sliding_window_attention',
        'window_attention',
    }
    for operation in operations:
        assert 'reference' in names(operation)


def test_listed_by_operation_in_order_of_priority():
    keys = [(x.operation, -x.priority) for x in list_implementations()]
    assert keys == sorted(keys)
    assert names('attention') == ['sdpa', 'reference']
    for implementation in list_implementations():
        assert isinstance(implementation, Implementation)
        assert implementation.requires
        assert isinstance(implementation.is_available(), bool)


def test_own_implementation():
    @register_implementation('attention', 'mean', requires='patience')
    def mean(q, k, v, bias, scale):
        return v.mean(dim=-2, keepdim=True).expand(*q.shape[:-1], -1)

    q, k, v = q_k_v()
    want = v.mean(dim=-2, keepdim=True).expand(-1, 4, -1)
    assert torch.equal(attention(q, k, v, impl='mean'), want)
    # Of the lowest priority, it is not what auto takes.
    assert names('attention') == ['sdpa', 'reference', 'mean']
    assert chosen_by(attention, q, k, v) == ['sdpa']


def test_auto_takes_the_best_that_can_run():
    register_implementation(
        'attention', 'absent', priority=99, is_available=lambda: False
    )(lambda *args: 'absent')
    register_implementation(
        'attention',
        'picky',
        priority=98,
        why_not=lambda q, *args: 'few' if q.shape[-2] < 9 else None,
    )(lambda *args: 'picky')
    q, k, v = q_k_v()
    assert chosen_by(attention, q, k, v) == ['sdpa']
    assert attention(q.repeat(1, 3, 1), k, v) == 'picky'
    assert chosen_by(attention, q, k, v, impl='reference') == ['reference']


def test_a_device_asks_only_the_implementations_of_its_own():
    asked = []
    for device in ('cpu', 'cuda', 'meta'):
        register_implementation(
            'attention',
            device,
            priority=50,
            devices=(device,),
            why_not=lambda *args, device=device: asked.append(device) or 'no',
        )(lambda *args: None)
    q = torch.zeros(1, 2, 3)
    attention(q, q, q)
    assert asked == ['cpu']
    attention(*[q.to('meta')] * 3)
    assert asked == ['cpu', 'meta']
    with pytest.raises(RuntimeError, match='it runs on cuda'):
        attention(q, q, q, impl='cuda')


def test_auto_takes_what_is_forced():
    q, k, v = q_k_v()
    for name, want in (('reference', 'reference'), ('auto', 'sdpa')):
        force_implementation('attention', name)
        assert chosen_by(attention, q, k, v) == [want]
        assert chosen_by(attention, q, k, v, impl='sdpa') == ['sdpa']


@pytest.mark.parametrize(
    'operation, name', [('attention', 'paper'), ('folding', 'auto')]
)
def test_unknown_names_cannot_be_forced(operation, name):
    unknown = 'paper' if name == 'paper' else 'folding'
    with pytest.raises(ValueError, match=unknown):
        force_implementation(operation, name)


def test_named_implementation_never_falls_back():
    register_implementation(
        'attention',
        'absent',
        requires='a quantum computer',
        is_available=lambda: False,
    )(lambda *args: args)
    register_implementation(
        'attention', 'picky', why_not=lambda *args: 'it takes even maps'
    )(lambda *args: args)
    with pytest.raises(RuntimeError, match="'absent'.*a quantum computer"):
        attention(*q_k_v(), impl='absent')
    with pytest.raises(RuntimeError, match="'picky'.*it takes even maps"):
        attention(*q_k_v(), impl='picky')


def test_nothing_can_run():
    register_implementation(
        'folding', 'reference', why_not=lambda *args: 'no paper'
    )(lambda: None)
    with pytest.raises(RuntimeError, match='folding'):
        dispatch.choose_implementation('folding', 'auto', torch.zeros(1))


def test_unknown_name_lists_the_names():
    with pytest.raises(ValueError, match="'flash'.*'sdpa', 'reference'"):
        attention(*q_k_v(), impl='flash')


@pytest.mark.parametrize('name', ['sdpa', 'auto'])
def test_name_that_is_taken(name):
    with pytest.raises(ValueError, match=name):
        register_implementation('attention', name)(lambda *args: args)
    assert names('attention') == ['sdpa', 'reference']


def test_operation_that_does_not_exist(table):
    with pytest.raises(ValueError, match="'atention'.*balanced_clusters"):
        register_implementation('atention', 'mine')(lambda *args: args)
    assert 'atention' not in table


def test_own_operation():
    register_implementation('folding', 'reference')(lambda x: x)
    register_implementation('folding', 'paper', priority=0.5)(lambda x: -x)
    x = torch.ones(1)
    assert dispatch.choose_implementation('folding', 'auto', x)(x) == -1
    assert names('folding') == ['paper', 'reference']


def test_reference_only_for_a_while():
    q, k, v = q_k_v()
    with pytest.raises(KeyError), reference_only():
        assert chosen_by(attention, q, k, v) == ['reference']
        assert chosen_by(attention, q, k, v, impl='sdpa') == ['sdpa']
        raise KeyError
    assert chosen_by(attention, q, k, v) == ['sdpa']


def test_what_was_forced_before_comes_back():
    force_implementation('attention', 'reference')
    q, k, v = q_k_v()
    with forced_implementations(dict(attention='sdpa')):
        assert chosen_by(attention, q, k, v) == ['sdpa']
    assert chosen_by(attention, q, k, v) == ['reference']
    with pytest.raises(ValueError, match='folding'):
        with forced_implementations(dict(attention='auto', folding='no')):
            pass
    assert chosen_by(attention, q, k, v) == ['reference']


@pytest.mark.parametrize('impl', ['reference', 'sdpa', 'cpp'])
def test_a_layer_hands_one_name_to_all_its_operations(impl):
    qkv = torch.randn(1, 9, 12)
    order = balanced_clusters(qkv[..., :4], 3, impl=impl)[:, None]
    cluster_attention(qkv, order, 3, 1, impl=impl)
    weights, biases = [torch.randn(12, 1, 3, 3)], [torch.randn(12)]
    mixed_convolution(qkv[None], weights, biases, impl)


def test_the_page_registers_in_five_lines():
    (code,) = re.findall(
        r'```python\n(from mmattn.ops import.*?)```',
        PAGE.read_text(),
        re.DOTALL,
    )
    assert len([line for line in code.splitlines() if line]) <= 5
    exec(code, {})
    q, k, v = q_k_v()
    want = v.mean(dim=-2, keepdim=True).expand(-1, 4, -1)
    assert torch.equal(attention(q, k, v, impl='mean'), want)


def test_the_page_shows_every_implementation_in_order():
    shown = {}
    for section in PAGE.read_text().split('\n### ')[1:]:
        operation = re.match(r'`(\w+)`', section)[1]
        shown[operation] = re.findall(r'^\| `(\w+)` \|', section, re.M)
    listed = {}
    for x in list_implementations():
        listed.setdefault(x.operation, []).append(x.name)
    assert shown == listed
