# Mask R-CNN on CSWin-T, COCO, 36 epochs, multi-scale and crops.
# Command:   bash tools/dist_train.sh configs/cswin/\
#                mask-rcnn_cswin-tiny_fpn_8xb2-ms-crop-3x_coco.py 8
# Hardware:  8 GPUs with 2 images each (other numbers: --auto-scale-lr)
# Expected:  box AP 49.0, mask AP 43.6, reported by the repository
_base_ = [
    '../_base_/models/mask-rcnn_boat-swin_fpn.py',
    '../_base_/datasets/coco_instance_ms-crop.py',
    '../_base_/schedules/coco_adamw_3x.py',
    'mmdet::_base_/default_runtime.py',
]

# The published file or one of tools/convert_checkpoint.py; train from scratch
# with --cfg-options model.backbone.init_cfg=None
pretrained = 'checkpoints/cswin-tiny_in1k.pth'

model = dict(
    backbone=dict(
        type='mmattn.CSWin',
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
