# python tools/train.py \
#     configs/attention_pyramid/\
#         mask-rcnn_sliding-window-nano_fpn_1xb8-8e_digits.py
_base_ = '../boat_swin/mask-rcnn_boat-swin-nano_fpn_1xb8-8e_digits.py'

model = dict(
    backbone=dict(type='mmattn.AttentionPyramid', arch='sliding-window-nano')
)
