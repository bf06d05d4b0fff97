# SMT-S on ImageNet-1K.
# Command:   bash tools/dist_train.sh \
#                configs/smt/smt-small_8xb128-300e_in1k.py 8
# Hardware:  8 GPUs with 128 images each (other numbers: --auto-scale-lr)
# Expected:  top-1 83.7 (reported by its repository)
_base_ = './smt-tiny_8xb128-300e_in1k.py'

model = dict(backbone=dict(arch='small', drop_path_rate=0.2))
