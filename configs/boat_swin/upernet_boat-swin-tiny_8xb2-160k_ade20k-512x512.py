# UperNet on BOAT-Swin-T, ADE20K, 160,000 iterations.
# Command:   bash tools/dist_train.sh configs/boat_swin/\
#                upernet_boat-swin-tiny_8xb2-160k_ade20k-512x512.py 8
# Hardware:  8 GPUs with 2 images each (other numbers: --auto-scale-lr)
# Expected:  mIoU not reported
_base_ = [
    '../_base_/models/upernet_boat-swin.py',
    '../_base_/datasets/ade20k_512x512.py',
    '../_base_/schedules/ade20k_adamw_160k.py',
    '../_base_/mmseg_runtime.py',
]

# The published file or one of tools/convert_checkpoint.py; train from scratch
# with --cfg-options model.backbone.init_cfg=None
pretrained = 'checkpoints/boat-swin-tiny_in1k.pth'

model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=pretrained))
)
