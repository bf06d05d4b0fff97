# python tools/train.py \
#     configs/attention_plugins/mask-rcnn_r50-enlca_fpn_1xb8-8e_digits.py
_base_ = './mask-rcnn_r50-window-attention_fpn_1xb8-8e_digits.py'

model = dict(
    backbone=dict(
        plugins=[
            dict(
                cfg=dict(type='mmattn.ENLCA'),
                stages=(False, True, True, True),
                position='after_conv3',
            )
        ],
    ),
)
