# CSWin-S on ImageNet-1K.
# Command:   bash tools/dist_train.sh \
#                configs/cswin/cswin-small_8xb256-300e_in1k.py 8
# Hardware:  8 GPUs with 256 images each (other numbers: --auto-scale-lr)
# Expected:  top-1 83.6, reported by the repository, of the averaged weights
_base_ = './cswin-tiny_8xb256-300e_in1k.py'

model = dict(backbone=dict(arch='small', drop_path_rate=0.4))
