import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner

from mmattn.attentions import WindowAttention
from mmattn.engine import AttentionBackendHook
from mmattn.ops import attention, dispatch, forced_implementations
from mmattn.ops._native import KERNELS


@pytest.fixture(autouse=True)
def nothing_forced(monkeypatch):
    monkeypatch.setattr(dispatch, '_FORCED', {})


class Model(BaseModel):
    def __init__(self, attention):
        super().__init__()
        self.attention = attention

    def forward(self, x, mode='loss'):
        loss = self.attention(x).square().mean()
        return dict(loss=loss) if mode == 'loss' else [loss]


def chosen_by_auto():
    q = torch.randn(1, 2, 3)
    names = []
    with dispatch.watch_choices(lambda row: names.append(row.name)):
        attention(q, q, q)
    return names[-1]


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
        'attention (WindowAttention) uses window_attention: cpp'
    ]


@pytest.mark.parametrize('impl', ['reference', dict(window_attention='sdpa')])
def test_the_choice_lasts_as_long_as_the_run(tmp_path, caplog, impl):
    name = impl if isinstance(impl, str) else impl['window_attention']
    (line,) = train(tmp_path, caplog, impl=impl)
    assert f'window_attention: {name}' in line
    assert chosen_by_auto() == 'sdpa'


def test_layers_with_their_own_impl_keep_it(tmp_path, caplog):
    layer = WindowAttention(8, 2, 2, impl='sdpa')
    (line,) = train(tmp_path, caplog, layer, impl='reference')
    assert 'window_attention: sdpa' in line


def test_an_implementation_that_cannot_run(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(KERNELS, 'why_not', lambda: 'there is no compiler')
    with pytest.raises(RuntimeError, match='compiler'):
        train(tmp_path, caplog, impl=dict(window_attention='cpp'))
    assert chosen_by_auto() == 'sdpa'


class Failing(torch.nn.Linear):
    impl = 'auto'

    def forward(self, x):
        assert chosen_by_auto() == 'reference'
        raise KeyError('a slip')


def test_a_failed_run_restores_the_choice(tmp_path, caplog):
    with pytest.raises(KeyError, match='a slip'):
        train(tmp_path, caplog, Failing(8, 8), impl='reference')
    assert chosen_by_auto() == 'sdpa'
    with forced_implementations(dict(attention='reference')):
        with pytest.raises(AssertionError):  # another choice in the run
            train(tmp_path / 'b', caplog, Failing(8, 8))
        assert chosen_by_auto() == 'reference'


class Recording(torch.nn.Linear):
    impl = 'auto'
    taken = ()

    def forward(self, x):
        self.taken = (*self.taken, chosen_by_auto())
        return super().forward(x)


def test_repeated_runs(tmp_path):
    layer = Recording(8, 8)
    runner = build(tmp_path, layer, impl='reference')
    runner.train()
    runner.train_loop._iter = 0  # once more
    runner.train()
    assert layer.taken == ('reference',) * 4
    assert chosen_by_auto() == 'sdpa'


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
    assert chosen_by_auto() == 'sdpa'


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


@pytest.mark.parametrize(
    'impl',
    [
        'onednn',
        'parts',
        dict(linear='reference'),
        dict(window_attention='cpp', layer_norm='onednn'),
        dict(mixed_convolution='parts'),
    ],
)
def test_removed_operations_and_implementations(impl):
    with pytest.raises(ValueError, match='optimize_for_inference'):
        AttentionBackendHook(impl)


def test_a_renamed_operation(tmp_path, caplog):
    impl = dict(kernel_attention='reference', window_attention='sdpa')
    (line,) = train(tmp_path, caplog, impl=impl)
    assert 'window_attention: sdpa' in line
    with pytest.raises(ValueError, match='random_feature_attention'):
        AttentionBackendHook(dict(kernel_attention='cpp'))
