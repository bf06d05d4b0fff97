# Mask R-CNN on a pyramid of sliding windows, COCO, 36 epochs.
# Command:   bash tools/dist_train.sh configs/attention_pyramid/\
#                mask-rcnn_sliding-window-tiny_fpn_8xb2-ms-crop-3x_coco.py 8
# Hardware:  8 GPUs with 2 images each (other numbers: --auto-scale-lr)
# Expected:  not known: an arch of this project, with Swin's recipe
_base_ = [
    '../_base_/models/mask-rcnn_boat-swin_fpn.py',
    '../_base_/datasets/coco_instance_ms-crop.py',
    '../_base_/schedules/coco_adamw_3x.py',
    'mmdet::_base_/default_runtime.py',
]

# What the config of ImageNet-1K beside this one trains; from scratch with
# --cfg-options model.backbone.init_cfg=None
pretrained = 'checkpoints/sliding-window-tiny_in1k.pth'

model = dict(
    backbone=dict(
        type='mmattn.AttentionPyramid',
        arch='sliding-window-tiny',
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    )
)
