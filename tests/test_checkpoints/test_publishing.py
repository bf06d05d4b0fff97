"""Publishing keeps weights and plain meta of a training checkpoint."""

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from safetensors.torch import load_file as read_safetensors

from mmattn.checkpoints.publishing import read_training, write_published
from mmattn.zoo import file_digest

START, SAVED = '20260131_120000', '20260131_120130'


def training_file(path, **more):
    """Write a small checkpoint as mmengine's Runner does."""
    state = {'backbone.w': torch.arange(6.0).view(2, 3)[:, :2]}
    meta = dict(
        epoch=3,
        seed=7,
        cfg='secret = 1',
        time=SAVED,
        experiment_name=f'a_config_{START}',
        dataset_meta=dict(classes=('0', '1'), palette=[(1, 2, 3)]),
    )
    hub = dict(
        log_scalars={'train/loss': HistoryBuffer([1.0, 2.0], [1, 1])},
        runtime_info=dict(top=np.float64(3)),
    )
    torch.save(
        dict(
            state_dict=state,
            meta=meta,
            message_hub=hub,
            optimizer=dict(state={0: torch.ones(100)}),
            **more,
        ),
        path,
    )
    return path


@pytest.mark.usefixtures('stubs_supported')
def test_only_weights_and_plain_meta_are_published(tmp_path):
    trained = read_training(training_file(tmp_path / 'epoch_3.pth'))
    files = write_published(trained, tmp_path, 'mine', 'model = 1')
    whole = torch.load(files.pth, weights_only=True)
    assert set(whole) == {'state_dict', 'meta'}
    assert whole['meta'] == dict(
        epoch=3,
        dataset_meta=dict(classes=('0', '1'), palette=[(1, 2, 3)]),
        cfg='model = 1',
    )
    expected = torch.tensor([[0.0, 1.0], [3.0, 4.0]])
    for state in (whole['state_dict'], read_safetensors(files.safetensors)):
        assert set(state) == {'backbone.w'}
        assert torch.equal(state['backbone.w'], expected)
    # A view of six numbers was saved; the file holds its four.
    assert whole['state_dict']['backbone.w'].untyped_storage().nbytes() == 16


@pytest.mark.usefixtures('stubs_supported')
def test_file_names_contain_the_digest(tmp_path):
    trained = read_training(training_file(tmp_path / 'epoch_3.pth'))
    files = write_published(trained, tmp_path, 'mine', '')
    for file in files:
        assert file.stem == f'mine-{file_digest(file)}'


@pytest.mark.usefixtures('stubs_supported')
def test_seed_and_time_are_read(tmp_path):
    trained = read_training(training_file(tmp_path / 'epoch_3.pth'))
    assert trained.seed == 7
    assert trained.seconds == 90


def test_missing_meta(tmp_path):
    path = tmp_path / 'bare.pth'
    torch.save(dict(state_dict=dict(w=torch.ones(1))), path)
    trained = read_training(path)
    assert (trained.seed, trained.seconds, trained.meta) == (None, None, {})


@pytest.mark.usefixtures('stubs_supported')
def test_meta_other_than_plain_values_is_dropped(tmp_path):
    path = tmp_path / 'epoch.pth'
    meta = dict(dataset_meta=dict(palette=np.ones(3)), iter=4)
    torch.save(dict(state_dict=dict(w=torch.ones(1)), meta=meta), path)
    assert read_training(path).meta == dict(iter=4)


def test_averaged_weights(tmp_path):
    """EMAHook saves the averaged weights in ``state_dict``."""
    from mmengine.hooks import EMAHook
    from mmengine.model import ExponentialMovingAverage

    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, 3.0)
    hook = EMAHook()
    hook.src_model = model
    hook.ema_model = ExponentialMovingAverage(model)
    torch.nn.init.constant_(hook.ema_model.module.weight, 5.0)
    saved = dict(state_dict=model.state_dict())
    hook.before_save_checkpoint(None, saved)
    path = tmp_path / 'epoch.pth'
    torch.save(saved, path)
    plain, averaged = (read_training(path, kind) for kind in (False, True))
    assert plain.state_dict['weight'].item() == 3
    assert averaged.state_dict['weight'].item() == 5
    assert set(plain.state_dict) == set(averaged.state_dict) == {'weight'}
    assert (plain.as_tested, averaged.as_tested) == (False, True)


@pytest.mark.usefixtures('stubs_supported')
def test_missing_averaged_weights(tmp_path):
    path = training_file(tmp_path / 'epoch.pth')
    with pytest.raises(ValueError, match='EMA'):
        read_training(path, averaged=True)
    assert read_training(path).as_tested


def test_a_bare_state_dict_is_not_a_training_checkpoint(tmp_path):
    path = tmp_path / 'weights.pth'
    torch.save(dict(w=torch.ones(1)), path)
    with pytest.raises(ValueError, match='state_dict'):
        read_training(path)


@pytest.mark.usefixtures('stubs_supported')
@pytest.mark.parametrize('value', [float('nan'), float('-inf')])
def test_weights_that_are_not_finite_are_not_published(tmp_path, value):
    state = dict(good=torch.ones(3), bad=torch.tensor([1.0, value]))
    path = tmp_path / 'epoch_3.pth'
    torch.save(dict(state_dict=state, meta={}), path)
    with pytest.raises(ValueError, match='bad') as error:
        read_training(path)
    assert 'good' not in str(error.value)
