# Mask R-CNN on BOAT-Swin nano, digit scenes, 8 epochs.
# Command:   python tools/train.py configs/boat_swin/\
#                mask-rcnn_boat-swin-nano_fpn_1xb8-8e_digits.py
# Hardware:  two CPU cores, about 4 minutes
# Expected:  box mAP 0.70, mask mAP 0.77
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    '../_base_/datasets/digits_instance.py',
    '../_base_/digits_runtime.py',
]
default_scope = 'mmdet'
max_epochs = 8

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmattn.BOATSwin',
        arch='nano',
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.0,
        # The usual 0.02 is too small a start for 24 channels from scratch.
        init_cfg=dict(type='Xavier', layer='Linear', distribution='uniform'),
    ),
    neck=dict(in_channels=[24, 48, 96, 192], out_channels=64),
    rpn_head=dict(
        in_channels=64,
        feat_channels=64,
        # Digits are 15 to 55 pixels high: anchors start at 16.
        anchor_generator=dict(scales=[4]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64),
        bbox_head=dict(in_channels=64, fc_out_channels=256, num_classes=10),
        mask_roi_extractor=dict(out_channels=64),
        mask_head=dict(in_channels=64, conv_out_channels=64, num_classes=10),
    ),
    # A scene holds eight digits at most: few proposals do, and save time.
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=500, max_per_img=200),
        rcnn=dict(sampler=dict(num=64)),
    ),
    test_cfg=dict(
        rpn=dict(nms_pre=500, max_per_img=100), rcnn=dict(max_per_img=20)
    ),
)

train_cfg = dict(
    type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=2
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        begin=1,
        end=max_epochs,
        eta_min_ratio=0.01,
        convert_to_iter_based=True,
    ),
]
default_hooks = dict(
    checkpoint=dict(save_best='coco/segm_mAP'),
    visualization=dict(type='DetVisualizationHook'),
)
visualizer = dict(
    type='DetLocalVisualizer',
    vis_backends=[dict(type='LocalVisBackend')],
    name='visualizer',
)

auto_scale_lr = dict(enable=False, base_batch_size=8)
