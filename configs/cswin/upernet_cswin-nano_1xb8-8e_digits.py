# python tools/train.py \
#     configs/cswin/upernet_cswin-nano_1xb8-8e_digits.py
_base_ = '../boat_swin/upernet_boat-swin-nano_1xb8-8e_digits.py'

model = dict(backbone=dict(type='mmattn.CSWin'))
