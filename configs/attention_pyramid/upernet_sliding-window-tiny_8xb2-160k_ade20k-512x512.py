# UperNet on a pyramid of sliding windows, ADE20K.
# Command:   bash tools/dist_train.sh configs/attention_pyramid/\
#                upernet_sliding-window-tiny_8xb2-160k_ade20k-512x512.py 8
# Hardware:  8 GPUs with 2 images each (other numbers: --auto-scale-lr)
# Expected:  not known: an arch of this project, with Swin's recipe
_base_ = [
    '../_base_/models/upernet_boat-swin.py',
    '../_base_/datasets/ade20k_512x512.py',
    '../_base_/schedules/ade20k_adamw_160k.py',
    '../_base_/mmseg_runtime.py',
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
