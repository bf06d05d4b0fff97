# UperNet on CSWin-T, ADE20K, 160,000 iterations.
# Command:   bash tools/dist_train.sh \
#                configs/cswin/upernet_cswin-tiny_8xb2-160k_ade20k-512x512.py 8
# Hardware:  8 GPUs with 2 images each (other numbers: --auto-scale-lr)
# Expected:  mIoU 49.3, reported by the repository
_base_ = [
    '../_base_/models/upernet_boat-swin.py',
    '../_base_/datasets/ade20k_512x512.py',
    '../_base_/schedules/ade20k_adamw_160k.py',
    '../_base_/mmseg_runtime.py',
]

# The published file or one of tools/convert_checkpoint.py; train from scratch
# with --cfg-options model.backbone.init_cfg=None
pretrained = 'checkpoints/cswin-tiny_in1k.pth'

model = dict(
    backbone=dict(
        type='mmattn.CSWin',
        drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
    decode_head=dict(in_channels=[64, 128, 256, 512]),
    auxiliary_head=dict(in_channels=256),
)
