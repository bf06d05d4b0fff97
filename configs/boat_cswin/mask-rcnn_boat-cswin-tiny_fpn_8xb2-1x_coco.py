# Mask R-CNN on BOAT-CSWin-T, COCO, 12 epochs.
# Command:   bash tools/dist_train.sh configs/boat_cswin/\
#                mask-rcnn_boat-cswin-tiny_fpn_8xb2-1x_coco.py 8
# Hardware:  8 GPUs with 2 images each (other numbers: --auto-scale-lr)
# Expected:  box AP, mask AP not reported
_base_ = '../cswin/mask-rcnn_cswin-tiny_fpn_8xb2-1x_coco.py'

pretrained = 'checkpoints/boat-cswin-tiny_in1k.pth'

model = dict(
    backbone=dict(
        type='mmattn.BOATCSWin', init_cfg=dict(checkpoint=pretrained)
    )
)
