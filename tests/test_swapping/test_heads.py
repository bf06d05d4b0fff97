"""Edits of heads and necks for other maps."""

import pytest

from mmattn.swapping.feature_maps import FeatureMap
from mmattn.swapping.heads import Maps, edit_head, find_heads, indices_read
from mmattn.swapping.necks import read_neck
from mmattn.swapping.unsupported import UnsupportedSwap

OLD = [
    FeatureMap(c, s) for c, s in ((256, 4), (512, 8), (1024, 16), (2048, 32))
]
NEW = [FeatureMap(c, s) for c, s in ((24, 4), (48, 8), (96, 16), (192, 32))]


def edited(head, old=OLD, new=NEW, positions=None):
    positions = positions or {i: i for i in range(len(old))}
    edits = edit_head(head, ('head',), Maps(old, new, positions))
    return {'.'.join(map(str, e.path[1:])): e.value for e in edits}


def test_a_head_of_one_map_by_index_and_by_channels():
    head = dict(in_channels=1024, in_index=2, channels=256)
    assert edited(head) == dict(in_channels=96)
    assert edited(dict(in_channels=2048)) == dict(in_channels=192)


def test_indices_refer_to_the_remaining_maps():
    head = dict(in_channels=2048, in_index=3)
    maps = dict(new=NEW[2:], positions={2: 0, 3: 1})
    assert edited(head, **maps) == dict(in_channels=192, in_index=1)
    last = dict(in_channels=2048, in_index=-1)
    assert edited(last, **maps) == dict(in_channels=192)


def test_a_head_without_convolutions_takes_the_channels_of_its_map():
    head = dict(in_channels=1024, in_index=2, channels=1024, num_convs=0)
    assert edited(head) == dict(in_channels=96, channels=96)
    assert edited(dict(head, num_convs=1)) == dict(in_channels=96)


def test_a_head_of_many_maps_keeps_its_types():
    head = dict(in_channels=(512, 2048), in_index=[1, 3], c1_in_channels=256)
    maps = dict(new=[NEW[0], NEW[1], NEW[3]], positions={0: 0, 1: 1, 3: 2})
    assert edited(head, **maps) == dict(
        in_channels=(48, 192), in_index=[1, 2], c1_in_channels=24
    )
    assert indices_read(head, OLD) == {0, 1, 3}


def test_a_head_that_only_uses_its_last_map():
    head = dict(
        type='EncHead', in_channels=(512, 1024, 2048), in_index=(1, 2, 3)
    )
    assert indices_read(head, OLD) == {3}
    assert indices_read(dict(head, add_lateral=True), OLD) == {1, 2, 3}
    maps = dict(new=[NEW[3]], positions={3: 0})
    assert edited(head, **maps) == dict(in_channels=(192,), in_index=(0,))


def test_parts_of_a_roi_head_without_a_neck():
    head = dict(
        bbox_roi_extractor=dict(out_channels=2048, featmap_strides=[16]),
        bbox_head=dict(in_channels=2048, fc_out_channels=2048),
    )
    assert edited(head, old=OLD[3:], new=NEW[3:]) == {
        'bbox_roi_extractor.out_channels': 192,
        'bbox_head.in_channels': 192,
    }


def test_a_head_that_does_not_fit_its_backbone():
    with pytest.raises(UnsupportedSwap, match='300'):
        edited(dict(type='FCNHead', in_channels=300, in_index=1))


def test_teachers_and_settings_are_not_heads():
    network = dict(
        backbone={},
        test_cfg={},
        teacher_bbox_head={},
        bbox_head=dict(type='A'),
        auxiliary_head=[dict(type='B'), dict(type='C')],
    )
    assert [path for path, _ in find_heads(network, ())] == [
        ('bbox_head',),
        ('auxiliary_head', 0),
        ('auxiliary_head', 1),
    ]


def test_a_head_inside_another_reads_its_own_map():
    inner = dict(type='FCNHead', in_channels=2048, in_index=3)
    network = dict(decode_head=dict(type='Iterative', generator=inner))
    paths = [path for path, _ in find_heads(network, ())]
    assert paths == [('decode_head',), ('decode_head', 'generator')]
    assert indices_read(network['decode_head'], OLD) == set()
    assert edited(network['decode_head']) == {}
    assert indices_read(inner, OLD) == {3}


def test_a_neck_that_takes_the_last_maps():
    neck = dict(in_channels=[512, 1024, 2048])
    assert neck_edits(neck) == ((1, 2, 3), dict(in_channels=[48, 96, 192]))


def neck_edits(neck, old=OLD, channels=(24, 48, 96, 192)):
    reading = read_neck(dict(neck=neck), (), old)
    chosen = [channels[i] for i in reading.indices]
    edits = reading.edits(chosen)
    return reading.indices, {e.path[-1]: e.value for e in edits}


def test_a_neck_that_skips_maps_gets_only_the_others():
    neck = dict(in_channels=[256, 512, 1024, 2048], start_level=1)
    assert neck_edits(neck) == (
        (1, 2, 3),
        dict(in_channels=[48, 96, 192], start_level=0),
    )


def test_a_neck_from_coarse_to_fine():
    neck = dict(in_channels=[2048, 1024, 512, 256])
    assert neck_edits(neck)[1] == dict(in_channels=[192, 96, 48, 24])


def test_a_neck_of_one_map():
    assert neck_edits(dict(in_channels=2048)) == ((3,), dict(in_channels=192))


def test_a_neck_that_passes_maps_on():
    neck = dict(in_channels=(256, 512), out_channels=(256, 512, 64))
    assert neck_edits(neck, OLD[:2])[1] == dict(
        in_channels=(24, 48), out_channels=(24, 48, 64)
    )


def test_a_neck_of_other_channels_is_rejected():
    with pytest.raises(UnsupportedSwap, match='FPN'):
        neck_edits(dict(type='FPN', in_channels=[1, 2, 3, 4]))
