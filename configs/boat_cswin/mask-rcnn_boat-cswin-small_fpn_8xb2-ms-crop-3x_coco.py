# Mask R-CNN on BOAT-CSWin-S, COCO, 36 epochs, multi-scale and crops.
# Command:   bash tools/dist_train.sh configs/boat_cswin/\
#                mask-rcnn_boat-cswin-small_fpn_8xb2-ms-crop-3x_coco.py 8
# Hardware:  8 GPUs with 2 images each (other numbers: --auto-scale-lr)
# Expected:  box AP, mask AP not reported
_base_ = '../cswin/mask-rcnn_cswin-small_fpn_8xb2-ms-crop-3x_coco.py'

pretrained = 'checkpoints/boat-cswin-small_in1k.pth'

model = dict(
    backbone=dict(
        type='mmattn.BOATCSWin', init_cfg=dict(checkpoint=pretrained)
    )
)
