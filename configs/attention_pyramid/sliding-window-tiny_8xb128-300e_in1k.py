# Pyramid of sliding windows, size of Swin-T, on ImageNet-1K.
# Command:   bash tools/dist_train.sh configs/attention_pyramid/\
#                sliding-window-tiny_8xb128-300e_in1k.py 8
# Hardware:  8 GPUs with 128 images each (other numbers: --auto-scale-lr)
# Expected:  not known: an arch of this project, with Swin's recipe
_base_ = [
    '../_base_/models/boat-swin_cls.py',
    '../_base_/datasets/imagenet_224.py',
    '../_base_/schedules/imagenet_adamw_300e.py',
    'mmpretrain::_base_/default_runtime.py',
]

model = dict(
    backbone=dict(type='mmattn.AttentionPyramid', arch='sliding-window-tiny')
)

# 300 checkpoints fill a disk: keep the last three and the best one.
default_hooks = dict(
    checkpoint=dict(max_keep_ckpts=3, save_best='accuracy/top1')
)
