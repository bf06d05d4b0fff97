# Mask R-CNN on BOAT-Swin-S, COCO, 36 epochs, multi-scale and crops.
# Command:   bash tools/dist_train.sh configs/boat_swin/\
#                mask-rcnn_boat-swin-small_fpn_8xb2-ms-crop-3x_coco.py 8
# Hardware:  8 GPUs with 2 images each (other numbers: --auto-scale-lr)
# Expected:  box AP, mask AP not reported
_base_ = './mask-rcnn_boat-swin-tiny_fpn_8xb2-ms-crop-3x_coco.py'

pretrained = 'checkpoints/boat-swin-small_in1k.pth'

model = dict(backbone=dict(arch='small', init_cfg=dict(checkpoint=pretrained)))
