# BOAT-CSWin-B on ImageNet-1K.
# Command:   bash tools/dist_train.sh \
#                configs/boat_cswin/boat-cswin-base_8xb128-300e_in1k.py 8
# Hardware:  8 GPUs with 128 images each (other numbers: --auto-scale-lr)
# Expected:  top-1 not reported
_base_ = '../cswin/cswin-base_8xb128-300e_in1k.py'

model = dict(backbone=dict(type='mmattn.BOATCSWin'))
