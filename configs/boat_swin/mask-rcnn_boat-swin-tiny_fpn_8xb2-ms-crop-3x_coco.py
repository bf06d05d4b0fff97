# Mask R-CNN on BOAT-Swin-T, COCO, 36 epochs, multi-scale and crops.
# Command:   bash tools/dist_train.sh configs/boat_swin/\
#                mask-rcnn_boat-swin-tiny_fpn_8xb2-ms-crop-3x_coco.py 8
# Hardware:  8 GPUs with 2 images each (other numbers: --auto-scale-lr)
# Expected:  box AP, mask AP not reported
_base_ = [
    '../_base_/models/mask-rcnn_boat-swin_fpn.py',
    '../_base_/datasets/coco_instance_ms-crop.py',
    '../_base_/schedules/coco_adamw_3x.py',
    'mmdet::_base_/default_runtime.py',
]

# The published file or one of tools/convert_checkpoint.py; train from scratch
# with --cfg-options model.backbone.init_cfg=None
pretrained = 'checkpoints/boat-swin-tiny_in1k.pth'

model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=pretrained))
)
