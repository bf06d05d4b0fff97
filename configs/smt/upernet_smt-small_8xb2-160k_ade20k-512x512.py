# UperNet on SMT-S, ADE20K, 160,000 iterations.
# Command:   bash tools/dist_train.sh \
#                configs/smt/upernet_smt-small_8xb2-160k_ade20k-512x512.py 8
# Hardware:  8 GPUs with 2 images each (other numbers: --auto-scale-lr)
# Expected:  mIoU 49.2 (reported by its repository)
_base_ = '../boat_swin/upernet_boat-swin-tiny_8xb2-160k_ade20k-512x512.py'

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
    decode_head=dict(in_channels=[64, 128, 256, 512]),
    auxiliary_head=dict(in_channels=256),
)
