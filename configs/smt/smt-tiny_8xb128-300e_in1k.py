# SMT-T on ImageNet-1K.
# Command:   bash tools/dist_train.sh \
#                configs/smt/smt-tiny_8xb128-300e_in1k.py 8
# Hardware:  8 GPUs with 128 images each (other numbers: --auto-scale-lr)
# Expected:  top-1 82.2 (reported by its repository)
_base_ = '../boat_swin/boat-swin-tiny_8xb128-300e_in1k.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmattn.SMT',
        arch='tiny',
        out_indices=(3,),
        drop_path_rate=0.1,
    ),
    head=dict(in_channels=512),
    train_cfg=dict(
        augments=[
            dict(type='Mixup', alpha=0.2),
            dict(type='CutMix', alpha=1.0),
        ]
    ),
)

# 5 epochs of linear warm-up from 1e-7 to 2e-3, then a cosine to 1e-6.
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-7 / 2e-3,
        by_epoch=True,
        begin=0,
        end=5,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-6,
        by_epoch=True,
        begin=5,
        end=300,
        convert_to_iter_based=True,
    ),
]
