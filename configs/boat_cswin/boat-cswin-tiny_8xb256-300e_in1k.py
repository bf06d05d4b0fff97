# BOAT-CSWin-T on ImageNet-1K.
# Command:   bash tools/dist_train.sh \
#                configs/boat_cswin/boat-cswin-tiny_8xb256-300e_in1k.py 8
# Hardware:  8 GPUs with 256 images each (other numbers: --auto-scale-lr)
# Expected:  top-1 not reported
_base_ = '../cswin/cswin-tiny_8xb256-300e_in1k.py'

model = dict(backbone=dict(type='mmattn.BOATCSWin'))
