# Mask R-CNN on a pyramid of reduced keys and values, COCO, 12 epochs.
# Command:   bash tools/dist_train.sh configs/attention_pyramid/\
#                mask-rcnn_key-value-tiny_fpn_8xb2-1x_coco.py 8
# Hardware:  8 GPUs with 2 images each (other numbers: --auto-scale-lr)
# Expected:  not known: an arch of this project, with Swin's recipe
_base_ = './mask-rcnn_sliding-window-tiny_fpn_8xb2-1x_coco.py'

# What the config of ImageNet-1K beside this one trains; from scratch with
# --cfg-options model.backbone.init_cfg=None
pretrained = 'checkpoints/key-value-tiny_in1k.pth'

model = dict(
    backbone=dict(
        arch='key-value-tiny',
        init_cfg=dict(checkpoint=pretrained),
    )
)
