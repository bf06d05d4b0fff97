# ATSS on SMT-S, COCO, 36 epochs, multi-scale and crops.
# Command:   bash tools/dist_train.sh \
#                configs/smt/atss_smt-small_fpn_8xb2-ms-crop-3x_coco.py 8
# Hardware:  8 GPUs with 2 images each (other numbers: --auto-scale-lr)
# Expected:  box AP 49.9 (reported by its repository)
_base_ = [
    'mmdet::atss/atss_r50_fpn_1x_coco.py',
    '../_base_/datasets/coco_ms-crop_pipeline.py',
]

# The published file or one of tools/convert_checkpoint.py; train from scratch
# with --cfg-options model.backbone.init_cfg=None
pretrained = 'checkpoints/smt-small_in1k.pth'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmattn.SMT',
        arch='small',
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)

train_dataloader = dict(dataset=dict(pipeline=_base_.ms_crop_pipeline))

train_cfg = dict(max_epochs=36)
optim_wrapper = dict(
    optimizer=dict(
        _delete_=True,
        type='AdamW',
        lr=1e-4,
        betas=(0.9, 0.999),
        weight_decay=0.05,
    ),
    paramwise_cfg=dict(custom_keys={'norm': dict(decay_mult=0.0)}),
)
param_scheduler = [
    dict(
        type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=1000
    ),
    dict(
        type='MultiStepLR',
        by_epoch=True,
        begin=0,
        end=36,
        milestones=[27, 33],
        gamma=0.1,
    ),
]
