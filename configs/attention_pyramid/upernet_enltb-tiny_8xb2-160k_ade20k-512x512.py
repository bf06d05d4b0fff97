# UperNet on a pyramid of ENLTB, ADE20K.
# Command:   bash tools/dist_train.sh configs/attention_pyramid/\
#                upernet_enltb-tiny_8xb2-160k_ade20k-512x512.py 8
# Hardware:  8 GPUs with 2 images each (other numbers: --auto-scale-lr)
# Expected:  not known: an arch of this project, with Swin's recipe
_base_ = './upernet_sliding-window-tiny_8xb2-160k_ade20k-512x512.py'

# What the config of ImageNet-1K beside this one trains; from scratch with
# --cfg-options model.backbone.init_cfg=None
pretrained = 'checkpoints/enltb-tiny_in1k.pth'

model = dict(
    backbone=dict(
        arch='enltb-tiny',
        init_cfg=dict(checkpoint=pretrained),
    )
)
