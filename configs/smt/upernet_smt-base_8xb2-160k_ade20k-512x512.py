# UperNet on SMT-B, ADE20K, 160,000 iterations.
# Command:   bash tools/dist_train.sh \
#                configs/smt/upernet_smt-base_8xb2-160k_ade20k-512x512.py 8
# Hardware:  8 GPUs with 2 images each (other numbers: --auto-scale-lr)
# Expected:  mIoU 49.6 (reported by its repository)
_base_ = './upernet_smt-small_8xb2-160k_ade20k-512x512.py'

pretrained = 'checkpoints/smt-base_in1k.pth'

model = dict(
    backbone=dict(
        arch='base', drop_path_rate=0.3, init_cfg=dict(checkpoint=pretrained)
    )
)
