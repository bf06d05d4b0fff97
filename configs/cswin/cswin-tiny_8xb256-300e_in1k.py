# CSWin-T on ImageNet-1K.
# Command:   bash tools/dist_train.sh \
#                configs/cswin/cswin-tiny_8xb256-300e_in1k.py 8
# Hardware:  8 GPUs with 256 images each (other numbers: --auto-scale-lr)
# Expected:  top-1 82.8, reported by the repository, of the averaged weights
_base_ = [
    '../_base_/models/boat-swin_cls.py',
    '../_base_/datasets/imagenet_224.py',
    '../_base_/schedules/imagenet_adamw_300e.py',
    'mmpretrain::_base_/default_runtime.py',
]

model = dict(
    backbone=dict(type='mmattn.CSWin', drop_path_rate=0.2),
    head=dict(in_channels=512),
)

train_dataloader = dict(batch_size=256)
optim_wrapper = dict(optimizer=dict(lr=2e-3), clip_grad=None)
# Ten epochs more at the last learning rate.
train_cfg = dict(max_epochs=310)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-6 / 2e-3,
        by_epoch=True,
        begin=0,
        end=20,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-5,
        by_epoch=True,
        begin=20,
        end=300,
        convert_to_iter_based=True,
    ),
]
# The averaged weights are evaluated, and are what a checkpoint's state_dict
# holds. A decay of 0.99984 is a momentum of 1 - 0.99984 here.
custom_hooks = [
    dict(
        type='EMAHook',
        momentum=1.6e-4,
    )
]
# 310 checkpoints fill a disk: keep the last three and the best one.
default_hooks = dict(
    checkpoint=dict(max_keep_ckpts=3, save_best='accuracy/top1')
)

auto_scale_lr = dict(base_batch_size=2048)  # 8 GPUs x 256
