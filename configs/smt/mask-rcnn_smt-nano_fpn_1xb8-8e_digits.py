# python tools/train.py \
#     configs/smt/mask-rcnn_smt-nano_fpn_1xb8-8e_digits.py
_base_ = '../boat_swin/mask-rcnn_boat-swin-nano_fpn_1xb8-8e_digits.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmattn.SMT',
        arch='nano',
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.0,
        # The usual 0.02 is too small a start for 24 channels from scratch.
        init_cfg=dict(type='Xavier', layer='Linear', distribution='uniform'),
    )
)
