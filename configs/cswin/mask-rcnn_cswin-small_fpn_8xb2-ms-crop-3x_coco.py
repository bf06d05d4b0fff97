# Mask R-CNN on CSWin-S, COCO, 36 epochs, multi-scale and crops.
# Command:   bash tools/dist_train.sh configs/cswin/\
#                mask-rcnn_cswin-small_fpn_8xb2-ms-crop-3x_coco.py 8
# Hardware:  8 GPUs with 2 images each (other numbers: --auto-scale-lr)
# Expected:  box AP 50.0, mask AP 44.5, reported by the repository
_base_ = './mask-rcnn_cswin-tiny_fpn_8xb2-ms-crop-3x_coco.py'

pretrained = 'checkpoints/cswin-small_in1k.pth'

model = dict(
    backbone=dict(
        arch='small',
        drop_path_rate=0.4,
        init_cfg=dict(checkpoint=pretrained),
    )
)
