# UperNet on BOAT-Swin-S, ADE20K, 160,000 iterations.
# Command:   bash tools/dist_train.sh configs/boat_swin/\
#                upernet_boat-swin-small_8xb2-160k_ade20k-512x512.py 8
# Hardware:  8 GPUs with 2 images each (other numbers: --auto-scale-lr)
# Expected:  mIoU not reported
_base_ = './upernet_boat-swin-tiny_8xb2-160k_ade20k-512x512.py'

pretrained = 'checkpoints/boat-swin-small_in1k.pth'

model = dict(backbone=dict(arch='small', init_cfg=dict(checkpoint=pretrained)))
