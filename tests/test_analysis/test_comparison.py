"""Models measured side by side."""

import pytest
import torch
from torch import nn

from mmattn.analysis.comparison import compare
from mmattn.analysis.cost import count_cost
from mmattn.analysis.subjects import Subject
from mmattn.analysis.trial import MODES, Settings
from mmattn.attentions import WindowAttention
from mmattn.backbones import BOATSwin
from mmattn.ops import watch_choices

BATCH, CHANNELS = 2, 5
SIZE = (4, 7)


class Convolutions(nn.Module):
    """Two convolutions, of which a training step keeps two inputs."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, CHANNELS, 1, bias=False)
        self.second = nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False)

    def forward(self, x):
        x = self.first(x)
        return x, dict(last=[self.second(x)])


def subject(name='one', make=Convolutions):
    return Subject(name, lambda size: make())


def settings(**changes):
    default = dict(
        batch=BATCH, device=torch.device('cpu'), rounds=2, min_seconds=0.0
    )
    return Settings(**default | changes)


@pytest.fixture(scope='module')
def rows():
    subjects = [subject('one'), subject('two')]
    return compare(subjects, SIZE, MODES, settings())


def test_a_row_for_each_mode_and_model(rows):
    assert [(row.mode, row.model) for row in rows] == [
        ('inference', 'one'),
        ('inference', 'two'),
        ('training', 'one'),
        ('training', 'two'),
    ]
    for row in rows:
        assert (row.height, row.width, row.tokens) == (4, 7, 2)
        assert len(row.rounds) == 2
        assert 0 < row.seconds.low <= row.seconds.median <= row.seconds.high
        assert row.peak_bytes is None  # of a GPU


def test_ratios_are_to_the_first(rows):
    for row in rows[::2]:
        assert row.ratio == row.cpu_ratio == (1, 1, 1)
    one, two = rows[:2]
    ratios = [b / a for a, b in zip(one.rounds, two.rounds)]
    assert two.ratio.median == pytest.approx(sum(ratios) / 2)


def test_costs_are_those_of_one_image(rows):
    pixels = SIZE[0] * SIZE[1]
    multiply_adds = pixels * (3 * CHANNELS + CHANNELS**2)
    for row in rows:
        passes = 3 if row.mode == 'training' else 1
        assert row.parameters == 3 * CHANNELS + CHANNELS**2
        assert row.multiply_adds == multiply_adds
        assert row.flops == passes * BATCH * 2 * multiply_adds
    # Images and parameters are there anyway; the second input is kept.
    kept = pixels * CHANNELS * 4
    assert [row.kept_bytes for row in rows] == [None, None, kept, kept]
    assert rows[2].moved_bytes > rows[0].moved_bytes > 2 * kept


def test_a_model_of_ours_costs_what_it_computes():
    ours = Subject('ours', lambda size: BOATSwin('nano', out_indices=(0,)))
    (row,) = compare([ours], (32, 40), ['inference'], settings())
    computed = count_cost(ours.build(SIZE), torch.rand(1, 3, 32, 40))
    assert row.multiply_adds == computed.multiply_adds > 0


def test_a_step_sees_mode_gradients_and_types():
    seen = []

    class Watched(Convolutions):
        def forward(self, x):
            for parameter in self.parameters():
                assert parameter.grad is None  # dropped, not added up
            out = super().forward(x)
            seen.append(
                (
                    self.training,
                    torch.is_grad_enabled(),
                    x.is_contiguous(memory_format=torch.channels_last),
                    self.first.weight.dtype,
                    out[0].dtype,
                )
            )
            return out

    float32, bfloat16 = torch.float32, torch.bfloat16
    for changes, weights, maps in (
        ({}, float32, float32),
        (dict(dtype=bfloat16), bfloat16, bfloat16),
        (dict(dtype=bfloat16, with_amp=True), float32, bfloat16),
    ):
        for mode in MODES:
            seen.clear()
            compare(
                [subject(make=Watched)],
                SIZE,
                [mode],
                settings(with_channels_last=True, **changes),
            )
            is_training = mode == 'training'
            expected = (is_training, is_training, True, weights, maps)
            # The first call only counts multiply-adds.
            assert set(seen[1:]) == {expected}


def test_a_named_implementation_runs_and_no_other():
    taken = {}

    class Attentions(nn.Module):
        def __init__(self):
            super().__init__()
            self.attend = WindowAttention(3, 1, window_size=2)

        def forward(self, x):
            chosen = taken.setdefault(torch.is_grad_enabled(), set())
            with watch_choices(lambda row: chosen.add(row.name)):
                return self.attend(x.movedim(1, -1))

    for impl in ('reference', None):
        taken.clear()
        named = Subject('named', lambda size: Attentions(), impl)
        compare([named], SIZE, MODES, settings())
        for chosen in taken.values():
            assert (chosen == {'reference'}) == (impl is not None)
    assert set(taken) == {False, True}


def test_an_implementation_of_nothing():
    plain = subject()._replace(impl='reference')
    with pytest.raises(ValueError, match='mmattn, got Convolutions without'):
        compare([plain], SIZE, ['inference'], settings())


def test_progress_says_where_it_is():
    lines = []
    compare([subject()], SIZE, ['inference'], settings(), lines.append)
    assert lines[0] == '4 x 7: building one'
    assert lines[1] == '4 x 7, inference: preparing one'
    assert lines[2].startswith('4 x 7, inference: round 1 of 2')


class Demanding(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, x):
        raise self.error


@pytest.mark.parametrize(
    'error, message',
    [
        (ValueError('too small'), 'cannot run: ValueError: too small'),
        (
            torch.cuda.OutOfMemoryError(),
            'cpu has too little memory; lower --ba',
        ),
    ],
)
def test_a_model_that_cannot_run_is_named(error, message):
    bad = subject('bad', lambda: Demanding(error))
    with pytest.raises(ValueError, match=f'bad at 4 x 7, batch 2: {message}'):
        compare([subject(), bad], SIZE, ['inference'], settings())


def test_a_bug_of_a_model_is_told_with_its_place():
    bad = subject('bad', lambda: Demanding(AttributeError('a slip')))
    place = rf'\({__file__}, line \d+, in forward: raise self.error\)'
    with pytest.raises(ValueError, match=f'AttributeError: a slip {place}'):
        compare([bad], SIZE, ['inference'], settings())


def test_a_bug_of_this_package_passes():
    with pytest.raises(TypeError, match='not callable'):
        compare([Subject('odd', None)], SIZE, ['inference'], settings())


def test_nothing_to_train():
    flat = subject('flat', nn.Flatten)
    with pytest.raises(ValueError, match='no tensor that has a gradient'):
        compare([flat], SIZE, ['training'], settings())
