# RetinaNet on SMT-S, COCO, 36 epochs, multi-scale and crops.
# Command:   bash tools/dist_train.sh \
#                configs/smt/retinanet_smt-small_fpn_8xb2-ms-crop-3x_coco.py 8
# Hardware:  8 GPUs with 2 images each (other numbers: --auto-scale-lr)
# Expected:  box AP 47.3 (reported by its repository)
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    'mmdet::_base_/datasets/coco_detection.py',
    '../_base_/datasets/coco_ms-crop_pipeline.py',
    '../_base_/schedules/coco_adamw_3x.py',
    'mmdet::_base_/default_runtime.py',
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
