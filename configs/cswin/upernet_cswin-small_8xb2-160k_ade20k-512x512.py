# UperNet on CSWin-S, ADE20K, 160,000 iterations.
# Command:   bash tools/dist_train.sh configs/cswin/\
#                upernet_cswin-small_8xb2-160k_ade20k-512x512.py 8
# Hardware:  8 GPUs with 2 images each (other numbers: --auto-scale-lr)
# Expected:  mIoU 50.4, reported by the repository
_base_ = './upernet_cswin-tiny_8xb2-160k_ade20k-512x512.py'

pretrained = 'checkpoints/cswin-small_in1k.pth'

model = dict(
    backbone=dict(
        arch='small',
        drop_path_rate=0.4,
        init_cfg=dict(checkpoint=pretrained),
    ),
)
