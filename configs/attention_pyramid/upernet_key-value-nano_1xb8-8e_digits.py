# python tools/train.py \
#     configs/attention_pyramid/upernet_key-value-nano_1xb8-8e_digits.py
_base_ = '../boat_swin/upernet_boat-swin-nano_1xb8-8e_digits.py'

model = dict(
    backbone=dict(type='mmattn.AttentionPyramid', arch='key-value-nano')
)
