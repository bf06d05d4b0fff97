# Swin nano, single digits on photographs, 25 epochs.
# Command:   python tools/train.py configs/swin/\
#                swin-nano_1xb32-25e_digits.py
# Hardware:  two CPU cores, about 3 minutes
# Expected:  top-1 87 %
_base_ = '../boat_swin/boat-swin-nano_1xb32-25e_digits.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.SwinTransformer',
        arch=dict(embed_dims=24, depths=[2, 2, 2, 2], num_heads=[1, 2, 4, 8]),
        out_indices=(3,),
        drop_path_rate=0.0,
        # Maps smaller than a window are padded, as ours are.
        pad_small_map=True,
        init_cfg=dict(type='Xavier', layer='Linear', distribution='uniform'),
    )
)
