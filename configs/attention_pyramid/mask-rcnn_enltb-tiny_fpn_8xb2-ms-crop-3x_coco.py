# Mask R-CNN on a pyramid of ENLTB, COCO, 36 epochs.
# Command:   bash tools/dist_train.sh configs/attention_pyramid/\
#                mask-rcnn_enltb-tiny_fpn_8xb2-ms-crop-3x_coco.py 8
# Hardware:  8 GPUs with 2 images each (other numbers: --auto-scale-lr)
# Expected:  not known: an arch of this project, with Swin's recipe
_base_ = './mask-rcnn_sliding-window-tiny_fpn_8xb2-ms-crop-3x_coco.py'

# What the config of ImageNet-1K beside this one trains; from scratch with
# --cfg-options model.backbone.init_cfg=None
pretrained = 'checkpoints/enltb-tiny_in1k.pth'

model = dict(
    backbone=dict(
        arch='enltb-tiny',
        init_cfg=dict(checkpoint=pretrained),
    )
)
