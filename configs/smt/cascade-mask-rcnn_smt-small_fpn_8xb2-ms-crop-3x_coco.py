# Cascade Mask R-CNN on SMT-S, COCO, 36 epochs, multi-scale and crops.
# Command:   bash tools/dist_train.sh configs/smt/\
#                cascade-mask-rcnn_smt-small_fpn_8xb2-ms-crop-3x_coco.py 8
# Hardware:  8 GPUs with 2 images each (other numbers: --auto-scale-lr)
# Expected:  box AP 51.9, mask AP 44.7 (reported by its repository)
_base_ = (
    '../boat_swin/cascade-mask-rcnn_boat-swin-tiny_fpn_8xb2-ms-crop-3x_coco.py'
)

# The published file or one of tools/convert_checkpoint.py; train from scratch
# with --cfg-options model.backbone.init_cfg=None
pretrained = 'checkpoints/smt-small_in1k.pth'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmattn.SMT',
        arch='small',
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
