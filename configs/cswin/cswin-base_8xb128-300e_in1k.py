# CSWin-B on ImageNet-1K.
# Command:   bash tools/dist_train.sh \
#                configs/cswin/cswin-base_8xb128-300e_in1k.py 8
# Hardware:  8 GPUs with 128 images each (other numbers: --auto-scale-lr)
# Expected:  top-1 84.2, reported by the repository, of the averaged weights
_base_ = './cswin-tiny_8xb256-300e_in1k.py'

model = dict(
    backbone=dict(arch='base', drop_path_rate=0.5),
    head=dict(in_channels=768),
)

train_dataloader = dict(batch_size=128)
optim_wrapper = dict(optimizer=dict(lr=1e-3, weight_decay=0.1))
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-6 / 1e-3,
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
custom_hooks = [
    dict(
        type='EMAHook',
        momentum=8e-5,  # a decay of 0.99992
    )
]

auto_scale_lr = dict(base_batch_size=1024)  # 8 GPUs x 128
