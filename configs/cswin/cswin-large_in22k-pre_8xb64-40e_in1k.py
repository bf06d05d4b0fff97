# CSWin-L on ImageNet-1K, from weights of ImageNet-22K.
# Command:   bash tools/dist_train.sh \
#                configs/cswin/cswin-large_in22k-pre_8xb64-40e_in1k.py 8
# Hardware:  8 GPUs with 64 images each (other numbers: --auto-scale-lr)
# Expected:  top-1 86.5, reported by the repository, of the averaged weights
_base_ = './cswin-tiny_8xb256-300e_in1k.py'

# The published file of ImageNet-22K or one of tools/convert_checkpoint.py; its
# classifier of 21841 classes is left out.
pretrained = 'checkpoints/cswin-large_in22k.pth'

model = dict(
    backbone=dict(
        arch='large',
        drop_path_rate=0.2,
        with_cp=True,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
    head=dict(in_channels=1152),
    train_cfg=dict(
        augments=[
            dict(type='Mixup', alpha=0.01),
            dict(type='CutMix', alpha=0.3),
        ]
    ),
)

train_dataloader = dict(batch_size=64)
# The new classifier learns at the full rate, the backbone at a twentieth.
optim_wrapper = dict(
    optimizer=dict(lr=2.5e-4, weight_decay=1e-8),
    paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.05)}),
)
# 30 epochs down to the last learning rate, 10 more at it; no warm-up.
train_cfg = dict(max_epochs=40)
param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        eta_min=5e-7,
        by_epoch=True,
        begin=0,
        end=30,
        convert_to_iter_based=True,
    )
]
custom_hooks = [
    dict(
        type='EMAHook',
        momentum=4e-4,  # a decay of 0.9996
    )
]

auto_scale_lr = dict(base_batch_size=512)  # 8 GPUs x 64
