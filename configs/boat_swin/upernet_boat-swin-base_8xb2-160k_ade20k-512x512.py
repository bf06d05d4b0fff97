# UperNet on BOAT-Swin-B, ADE20K, 160,000 iterations.
# Command:   bash tools/dist_train.sh configs/boat_swin/\
#                upernet_boat-swin-base_8xb2-160k_ade20k-512x512.py 8
# Hardware:  8 GPUs with 2 images each (other numbers: --auto-scale-lr)
# Expected:  mIoU not reported
_base_ = './upernet_boat-swin-tiny_8xb2-160k_ade20k-512x512.py'

pretrained = 'checkpoints/boat-swin-base_in1k.pth'

model = dict(
    backbone=dict(arch='base', init_cfg=dict(checkpoint=pretrained)),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
)
