# UperNet on CSWin-B, ADE20K, 160,000 iterations.
# Command:   bash tools/dist_train.sh \
#                configs/cswin/upernet_cswin-base_8xb2-160k_ade20k-512x512.py 8
# Hardware:  8 GPUs with 2 images each (other numbers: --auto-scale-lr)
# Expected:  mIoU 51.1, reported by the repository
_base_ = './upernet_cswin-tiny_8xb2-160k_ade20k-512x512.py'

pretrained = 'checkpoints/cswin-base_in1k.pth'

model = dict(
    backbone=dict(
        arch='base',
        drop_path_rate=0.6,
        init_cfg=dict(checkpoint=pretrained),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
