import pytest
import torch

from mmattn.backbones import AttentionPyramid, CSWin
from mmattn.checkpoints import convert, load_file, save_file
from mmattn.checkpoints.architecture import family_and_arch


def test_a_local_convolution_alone_does_not_make_a_cswin():
    assert family_and_arch(CSWin('nano').state_dict()) == ('CSWin', 'nano')
    distant = dict(type='mmattn.FeatureSpaceAttention')
    pyramid = AttentionPyramid(
        dict(
            embed_dims=24,
            depths=(1, 1),
            num_heads=(1, 2),
            attentions=((distant,), (distant,)),
        ),
        out_indices=(0, 1),
    )
    assert family_and_arch(pyramid.state_dict()) == (None, None)


@pytest.mark.parametrize('arch', ['swin-nano', 'sliding-window-nano'])
def test_windows_that_slide_are_told_from_those_that_shift(arch, tmp_path):
    model = AttentionPyramid(arch)
    for name in ('a.pth', 'a.safetensors'):
        save_file(model.state_dict(), tmp_path / name)
        converted = convert(load_file(tmp_path / name))
        assert (converted.family, converted.arch) == ('AttentionPyramid', arch)
    again = AttentionPyramid(converted.arch)
    again.load_state_dict(converted.backbone)
    x = torch.rand(1, 3, 64, 64)
    for a, b in zip(model.eval()(x), again.eval()(x)):
        assert torch.equal(a, b)


def test_windows_of_another_size_and_stride():
    sliding = dict(
        type='mmattn.SlidingWindowAttention', window_size=5, stride=2
    )
    arch = dict(
        embed_dims=8,
        depths=(1, 2),
        num_heads=(1, 2),
        attentions=((sliding,), (sliding,)),
    )
    model = AttentionPyramid(arch, out_indices=(0, 1))
    assert family_and_arch(model.state_dict()) == ('AttentionPyramid', arch)


def test_another_attention_in_a_later_block_is_not_taken_for_windows():
    window = dict(type='mmattn.WindowAttention')
    distant = dict(type='mmattn.FeatureSpaceAttention')
    pyramid = AttentionPyramid(
        dict(
            embed_dims=8,
            depths=(2,),
            num_heads=(1,),
            attentions=((window, distant),),
        ),
        out_indices=(0,),
    )
    assert family_and_arch(pyramid.state_dict()) == (None, None)
