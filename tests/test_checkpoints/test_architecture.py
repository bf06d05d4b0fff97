from mmattn.backbones import AttentionPyramid, CSWin
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
