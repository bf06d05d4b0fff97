# Mask R-CNN on SMT-B, COCO, 36 epochs, multi-scale and crops.
# Command:   bash tools/dist_train.sh \
#                configs/smt/mask-rcnn_smt-base_fpn_8xb2-ms-crop-3x_coco.py 8
# Hardware:  8 GPUs with 2 images each (other numbers: --auto-scale-lr)
# Expected:  box AP 49.8, mask AP 44.0 (reported by its repository)
_base_ = './mask-rcnn_smt-small_fpn_8xb2-ms-crop-3x_coco.py'

pretrained = 'checkpoints/smt-base_in1k.pth'

model = dict(
    backbone=dict(
        arch='base', drop_path_rate=0.3, init_cfg=dict(checkpoint=pretrained)
    )
)
