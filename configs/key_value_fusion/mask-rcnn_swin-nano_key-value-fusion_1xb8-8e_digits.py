# python tools/train.py \
#     configs/key_value_fusion/\
#         mask-rcnn_swin-nano_key-value-fusion_1xb8-8e_digits.py
_base_ = '../boat_swin/mask-rcnn_boat-swin-nano_fpn_1xb8-8e_digits.py'

model = dict(
    backbone=dict(type='mmattn.AttentionPyramid', arch='swin-nano'),
    # In the FPN's place, with its in_channels, out_channels and num_outs.
    neck=dict(type='mmattn.KeyValueFusion', num_heads=4),
)
