# BOAT-Swin-S on ImageNet-1K.
# Command:   bash tools/dist_train.sh \
#                configs/boat_swin/boat-swin-small_8xb128-300e_in1k.py 8
# Hardware:  8 GPUs with 128 images each (other numbers: --auto-scale-lr)
# Expected:  top-1 not reported
_base_ = './boat-swin-tiny_8xb128-300e_in1k.py'

model = dict(backbone=dict(arch='small', drop_path_rate=0.3))
