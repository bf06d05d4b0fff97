# Mask R-CNN on Swin nano, digit scenes, 8 epochs.
# Command:   python tools/train.py configs/swin/\
#                mask-rcnn_swin-nano_fpn_1xb8-8e_digits.py
# Hardware:  two CPU cores, about 4 minutes
# Expected:  box mAP 0.70, mask mAP 0.78
_base_ = '../boat_swin/mask-rcnn_boat-swin-nano_fpn_1xb8-8e_digits.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.SwinTransformer',
        arch=dict(embed_dims=24, depths=[2, 2, 2, 2], num_heads=[1, 2, 4, 8]),
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.0,
        # Maps smaller than a window are padded, as ours are.
        pad_small_map=True,
        init_cfg=dict(type='Xavier', layer='Linear', distribution='uniform'),
    )
)
