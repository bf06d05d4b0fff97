# UperNet on BOAT-CSWin-S, ADE20K, 160,000 iterations.
# Command:   bash tools/dist_train.sh configs/boat_cswin/\
#                upernet_boat-cswin-small_8xb2-160k_ade20k-512x512.py 8
# Hardware:  8 GPUs with 2 images each (other numbers: --auto-scale-lr)
# Expected:  mIoU not reported
_base_ = '../cswin/upernet_cswin-small_8xb2-160k_ade20k-512x512.py'

pretrained = 'checkpoints/boat-cswin-small_in1k.pth'

model = dict(
    backbone=dict(
        type='mmattn.BOATCSWin', init_cfg=dict(checkpoint=pretrained)
    )
)
