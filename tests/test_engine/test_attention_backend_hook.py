import pytest
import torch
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner

from mmattn.attentions import WindowAttention
from mmattn.engine import AttentionBackendHook
from mmattn.ops import choose_implementation, implementations
from mmattn.ops.cpu_kernels import library


@pytest.fixture(autouse=True)
def nothing_forced(monkeypatch):
    monkeypatch.setattr(implementations, '_FORCED', {})


class Model(BaseModel):
    def __init__(self, attention):
        super().__init__()
        self.attention = attention

    def forward(self, x, mode='loss'):
        return dict(loss=self.attention(x).square().mean())


def train(tmp_path, caplog, attention=None, **options):
    model = Model(attention or WindowAttention(8, 2, 2))
    images = torch.randn(2, 4, 4, 8)
    runner = Runner(
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
    runner.logger.addHandler(caplog.handler)
    with caplog.at_level('INFO'):
        runner.train()
    return [line for line in caplog.messages if ' takes ' in line]


def test_logs_what_each_layer_takes_once(tmp_path, caplog):
    assert train(tmp_path, caplog) == [
        'attention (WindowAttention) takes linear: onednn, '
        'window_attention: cpp'
    ]


@pytest.mark.parametrize(
    'impl, linear',
    [('reference', 'reference'), (dict(window_attention='sdpa'), 'onednn')],
)
def test_chooses_for_the_run_alone(tmp_path, caplog, impl, linear):
    taken = impl if isinstance(impl, str) else impl['window_attention']
    assert train(tmp_path, caplog, impl=impl)[0].startswith(
        f'attention (WindowAttention) takes linear: {linear}, '
        f'window_attention: {taken}'
    )
    q = torch.randn(1, 2, 3)
    row = choose_implementation('attention', 'auto', q, q, q, None, 1.0)
    assert row.name == 'sdpa'


def test_layers_that_name_their_own_keep_it(tmp_path, caplog):
    layer = WindowAttention(8, 2, 2, impl='sdpa')
    (line,) = train(tmp_path, caplog, layer, impl='reference')
    assert 'linear: reference, window_attention: sdpa' in line


def test_what_cannot_run_ends_the_run(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(library, '_MISSING', 'there is no C++ compiler')
    with pytest.raises(RuntimeError, match='cpp.: there is no C.. compiler'):
        train(tmp_path, caplog, impl=dict(window_attention='cpp'))


def test_a_model_without_attention(tmp_path, caplog):
    with pytest.raises(ValueError, match='got Model without any; leave'):
        train(tmp_path, caplog, torch.nn.Linear(8, 8))


@pytest.mark.parametrize(
    'impl', ['fastest', {}, dict(attention='cpp'), dict(convolution='auto')]
)
def test_unknown_names(impl):
    with pytest.raises(ValueError, match='AttentionBackendHook expects impl'):
        AttentionBackendHook(impl)
