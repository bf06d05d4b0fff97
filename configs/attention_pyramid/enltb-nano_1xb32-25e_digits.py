# python tools/train.py \
#     configs/attention_pyramid/enltb-nano_1xb32-25e_digits.py
_base_ = '../boat_swin/boat-swin-nano_1xb32-25e_digits.py'

model = dict(backbone=dict(type='mmattn.AttentionPyramid', arch='enltb-nano'))
# At 1e-3 a classifier that attends to the whole map does not leave chance.
optim_wrapper = dict(optimizer=dict(lr=3e-4))
