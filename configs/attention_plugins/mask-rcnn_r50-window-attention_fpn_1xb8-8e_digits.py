# python tools/train.py \
#     configs/attention_plugins/\
#         mask-rcnn_r50-window-attention_fpn_1xb8-8e_digits.py
_base_ = '../boat_swin/mask-rcnn_boat-swin-nano_fpn_1xb8-8e_digits.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='ResNet',
        depth=50,
        base_channels=16,
        stem_channels=16,
        plugins=[
            dict(
                cfg=dict(
                    type='mmattn.AttentionPlugin',
                    attention=dict(type='mmattn.WindowAttention', num_heads=4),
                ),
                stages=(False, True, True, True),
                position='after_conv3',
            )
        ],
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
