"""Models measured beside each other."""

import pytest
import torch
from torch import nn

import mmattn
from mmattn.analysis.benchmark import MODES, Settings, measure, to_markdown
from mmattn.analysis.targets import Target
from mmattn.attentions import WindowAttention
from mmattn.ops import watch_choices

BATCH, CHANNELS = 2, 5
SIZE = (4, 7)


class Convolutions(nn.Module):
    """Two convolutions, of which a training step saves two inputs."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, CHANNELS, 1, bias=False)
        self.second = nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False)

    def forward(self, x):
        x = self.first(x)
        return x, dict(last=[self.second(x)])


def target(name='one', make=Convolutions, impl=None):
    return Target(name, lambda size: make(), impl)


def settings(**changes):
    default = dict(
        batch=BATCH, device=torch.device('cpu'), rounds=2, min_seconds=0.0
    )
    return Settings(**default | changes)


@pytest.fixture(scope='module')
def rows():
    targets = [target('one'), target('two')]
    rows, left_out = measure(targets, SIZE, MODES, settings())
    assert left_out == []
    return rows


def test_a_row_for_each_mode_and_model(rows):
    assert [(row['mode'], row['model']) for row in rows] == [
        ('inference', 'one'),
        ('inference', 'two'),
        ('training', 'one'),
        ('training', 'two'),
    ]
    for row in rows:
        assert row['size'] == '4 x 7' and row['runtime'] == 'eager'
        assert float(row['images/s']) > 0
        assert row['GB peak'] == row['difference'] == ''
    for row in rows[::2]:  # ratios are to the first
        assert row['ratio (quartiles)'] == '1.000 (1.000-1.000)'


def test_saved_activations_are_those_of_one_image(rows):
    many, few = (
        measure([target(make=make)], (128, 256), ['training'], settings())[0][
            0
        ]
        for make in (Convolutions, lambda: nn.Conv2d(3, 500, 1))
    )
    # The second convolution saves its input; images and weights don't count.
    saved = 128 * 256 * CHANNELS * 4
    assert many['MB saved/image'] == f'{saved / 1e6:.1f}' != '0.0'
    assert few['MB saved/image'] == '0.0'
    assert [row['MB saved/image'] for row in rows[:2]] == ['', '']


def test_empty_columns_are_left_out(rows):
    table = to_markdown(rows)
    assert 'MB saved' in table and 'GB peak' not in table
    assert 'MB saved' not in to_markdown(rows[:2])
    assert len({line.count('|') for line in table.splitlines()}) == 1


def test_a_step_sees_mode_gradients_and_dtypes():
    seen = []

    class Watched(Convolutions):
        def forward(self, x):
            for parameter in self.parameters():
                assert parameter.grad is None  # dropped, not added up
            out = super().forward(x)
            dtypes = (self.first.weight.dtype, out[0].dtype)
            mode = (self.training, torch.is_grad_enabled())
            seen.append((*mode, *dtypes))
            return out

    float32, bfloat16 = torch.float32, torch.bfloat16
    for changes, *dtypes in (
        ({}, float32, float32),
        (dict(dtype=bfloat16), bfloat16, bfloat16),
        (dict(dtype=bfloat16, amp=True), float32, bfloat16),
    ):
        seen.clear()
        measure([target(make=Watched)], SIZE, MODES, settings(**changes))
        assert set(seen) == {
            (False, False, *dtypes),
            (True, True, *dtypes),
        }


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attend = WindowAttention(3, 1, window_size=2)

    def forward(self, x):
        return self.attend(x.movedim(1, -1))


@pytest.mark.parametrize('impl', ['reference', 'sdpa', None])
def test_a_named_implementation_runs_and_no_other(impl):
    taken = set()
    with watch_choices(lambda row: taken.add((row.operation, row.name))):
        named = target(make=Attention, impl=impl)
        measure([named], (4, 8), MODES, settings())
    names = {name for op, name in taken if op == 'window_attention'}
    assert (names == {impl}) == (impl is not None)
    if impl is not None:  # and never a native kernel
        assert {name for _, name in taken} <= {impl, 'sdpa', 'reference'}


def test_runtimes_take_turns_with_eager(monkeypatch):
    def optimize(module):
        return lambda x: [2 * out for out in module(x)[:1]] + [module(x)[1]]

    monkeypatch.setitem(vars(mmattn), 'optimize_for_inference', optimize)
    lines = []
    rows, left_out = measure(
        [target()],
        SIZE,
        MODES,
        settings(runtimes=['eager', 'optimized']),
        lines.append,
    )
    assert [(row['runtime'], row['mode']) for row in rows] == [
        ('eager', 'inference'),
        ('optimized', 'inference'),
        ('eager', 'training'),
    ]
    assert left_out == []
    assert 0 < float(rows[1]['difference']) <= 1
    assert any('differs from eager' in line for line in lines)


def test_a_runtime_that_fails_is_left_out(monkeypatch):
    def optimize(module):
        try:
            raise KeyError('the cause')
        except KeyError as error:
            raise RuntimeError('a consequence') from error

    monkeypatch.setitem(vars(mmattn), 'optimize_for_inference', optimize)
    both = settings(runtimes=['eager', 'optimized'])
    rows, left_out = measure([target()], SIZE, ['inference'], both)
    assert [row['runtime'] for row in rows] == ['eager']
    assert left_out == [
        "one, optimized, 4 x 7: left out, KeyError: 'the cause'"
    ]


@pytest.mark.slow
def test_compiled():
    both = settings(runtimes=['eager', 'compile'])
    rows, left_out = measure([target()], SIZE, MODES, both)
    assert left_out == [] and len(rows) == 4
    assert float(rows[1]['difference']) < 1e-5


@pytest.mark.parametrize('runtime', ['onnxruntime', 'openvino'])
def test_exported(runtime):
    pytest.importorskip('onnxscript')
    pytest.importorskip(runtime)
    both = settings(runtimes=['eager', runtime])
    rows, left_out = measure([target()], SIZE, ['inference'], both)
    assert left_out == []
    assert rows[1]['runtime'] == runtime
    assert float(rows[1]['difference']) < 1e-5


class Demanding(nn.Module):
    def forward(self, x):
        raise ValueError('too small')


def test_the_first_model_must_run():
    bad = target('bad', Demanding)
    with pytest.raises(ValueError, match='bad, eager, 4 x 7.*too small'):
        measure([bad, target()], SIZE, ['inference'], settings())


def test_another_model_may_fail():
    bad = target('bad', Demanding)
    rows, left_out = measure([target(), bad], SIZE, ['inference'], settings())
    assert [row['model'] for row in rows] == ['one']
    assert 'too small' in left_out[0]
