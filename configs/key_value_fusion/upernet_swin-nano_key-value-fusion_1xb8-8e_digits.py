# python tools/train.py \
#     configs/key_value_fusion/\
#         upernet_swin-nano_key-value-fusion_1xb8-8e_digits.py
_base_ = '../boat_swin/upernet_boat-swin-nano_1xb8-8e_digits.py'

model = dict(
    backbone=dict(type='mmattn.AttentionPyramid', arch='swin-nano'),
    neck=dict(
        type='mmattn.KeyValueFusion',
        in_channels=[24, 48, 96, 192],
        out_channels=64,
        num_heads=4,
    ),
    decode_head=dict(in_channels=[64, 64, 64, 64]),
    auxiliary_head=dict(in_channels=64),
)
