import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner

from mmattn.attentions import WindowAttention
from mmattn.engine import AttentionBackendHook
from mmattn.ops import (
    choose_implementation,
    forced_implementations,
    implementations,
)
from mmattn.ops.cpu_kernels import building


@pytest.fixture(autouse=True)
def nothing_forced(monkeypatch):
    monkeypatch.setattr(implementations, '_FORCED', {})


class Model(BaseModel):
    def __init__(self, attention):
        super().__init__()
        self.attention = attention

    def forward(self, x, mode='loss'):
        loss = self.attention(x).square().mean()
        return dict(loss=loss) if mode == 'loss' else [loss]


def taken_by_auto():
    q = torch.randn(1, 2, 3)
    args = (q, q, q, None, 1.0)
    return choose_implementation('attention', 'auto', *args).name


def build(tmp_path, attention, **options):
    model = Model(attention)
    images = torch.randn(2, 4, 4, 8)
    return Runner(
        model,
        str(tmp_path),
        train_dataloader=torch.utils.data.DataLoader(
            [dict(x=x) for x in images]
        ),
        optim_wrapper=OptimWrapper(torch.optim.SGD(model.parameters(), 0.1)),
        train_cfg=dict(by_epoch=False, max_iters=2),
        custom_hooks=[dict(type='mmattn.AttentionBackendHook', **options)],
        default_hooks=dict(checkpoint=None, logger=None),
        experiment_name=str(tmp_path).replace('/', '-'),
    )


def train(tmp_path, caplog, attention=None, **options):
    attention = attention or WindowAttention(8, 2, 2)
    runner = build(tmp_path, attention, **options)
    runner.logger.addHandler(caplog.handler)
    with caplog.at_level('INFO'):
        runner.train()
    return [line for line in caplog.messages if ' uses ' in line]


def test_each_layer_is_logged_once(tmp_path, caplog):
    assert train(tmp_path, caplog) == [
        'attention (WindowAttention) uses linear: onednn, '
        'window_attention: cpp'
    ]


@pytest.mark.parametrize(
    'impl, linear',
    [('reference', 'reference'), (dict(window_attention='sdpa'), 'onednn')],
)
def test_the_choice_lasts_as_long_as_the_run(tmp_path, caplog, impl, linear):
    taken = impl if isinstance(impl, str) else impl['window_attention']
    assert train(tmp_path, caplog, impl=impl)[0].startswith(
        f'attention (WindowAttention) uses linear: {linear}, '
        f'window_attention: {taken}'
    )
    assert taken_by_auto() == 'sdpa'


def test_layers_with_their_own_impl_keep_it(tmp_path, caplog):
    layer = WindowAttention(8, 2, 2, impl='sdpa')
    (line,) = train(tmp_path, caplog, layer, impl='reference')
    assert 'linear: reference, window_attention: sdpa' in line


def test_an_implementation_that_cannot_run(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(building, '_MISSING', 'there is no C++ compiler')
    with pytest.raises(RuntimeError, match='compiler'):
        train(tmp_path, caplog, impl=dict(window_attention='cpp'))
    assert taken_by_auto() == 'sdpa'


class Failing(torch.nn.Linear):
    impl = 'auto'

    def forward(self, x):
        assert taken_by_auto() == 'reference'
        raise KeyError('a slip')


def test_a_failed_run_restores_the_choice(tmp_path, caplog):
    with pytest.raises(KeyError, match='a slip'):
        train(tmp_path, caplog, Failing(8, 8), impl='reference')
    assert taken_by_auto() == 'sdpa'
    with forced_implementations(dict(attention='reference')):
        with pytest.raises(AssertionError):  # another choice in the run
            train(tmp_path / 'b', caplog, Failing(8, 8))
        assert taken_by_auto() == 'reference'


class Recording(torch.nn.Linear):
    impl = 'auto'
    taken = ()

    def forward(self, x):
        self.taken = (*self.taken, taken_by_auto())
        return super().forward(x)


def test_repeated_runs(tmp_path):
    layer = Recording(8, 8)
    runner = build(tmp_path, layer, impl='reference')
    runner.train()
    runner.train_loop._iter = 0  # once more
    runner.train()
    assert layer.taken == ('reference',) * 4
    assert taken_by_auto() == 'sdpa'


def test_validation_alone(tmp_path):
    class Nothing(BaseMetric):
        def process(self, data_batch, data_samples):
            self.results.append(0)

        def compute_metrics(self, results):
            return {}

    layer = Recording(8, 8)
    data = torch.utils.data.DataLoader([dict(x=torch.randn(4, 8))])
    runner = Runner(
        Model(layer),
        str(tmp_path),
        val_dataloader=data,
        val_evaluator=Evaluator(Nothing()),
        val_cfg=dict(),
        custom_hooks=[
            dict(type='mmattn.AttentionBackendHook', impl='reference')
        ],
        default_hooks=dict(logger=None),
        experiment_name=str(tmp_path).replace('/', '-'),
    )
    runner.val()
    assert layer.taken == ('reference',)
    assert taken_by_auto() == 'sdpa'


def test_a_model_without_attention(tmp_path, caplog):
    with pytest.raises(ValueError, match='no attention'):
        train(tmp_path, caplog, torch.nn.Linear(8, 8))


@pytest.mark.parametrize(
    'impl',
    ['fastest', {}, dict(attention='cpp'), dict(convolution='auto'), ['sdpa']],
)
def test_unknown_names(impl):
    with pytest.raises(ValueError, match='unknown'):
        AttentionBackendHook(impl)
