# DINO with four scales on SMT-S, COCO, 36 epochs.
# Command:   bash tools/dist_train.sh \
#                configs/smt/dino-4scale_smt-small_8xb2-36e_coco.py 8
# Hardware:  8 GPUs with 2 images each (other numbers: --auto-scale-lr)
# Expected:  box AP 54.0 (reported by its repository, schedule not stated)
_base_ = 'mmdet::dino/dino-4scale_r50_8xb2-36e_coco.py'

# The published file or one of tools/convert_checkpoint.py; train from scratch
# with --cfg-options model.backbone.init_cfg=None
pretrained = 'checkpoints/smt-small_in1k.pth'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmattn.SMT',
        arch='small',
        out_indices=(1, 2, 3),
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
    neck=dict(in_channels=[128, 256, 512]),
)

auto_scale_lr = dict(enable=False)
