# python tools/train.py \
#     configs/attention_pyramid/sliding-window-nano_1xb32-25e_digits.py
_base_ = '../boat_swin/boat-swin-nano_1xb32-25e_digits.py'

model = dict(
    backbone=dict(type='mmattn.AttentionPyramid', arch='sliding-window-nano')
)
