# UperNet on BOAT-Swin nano, digit scenes, 8 epochs of 1200 images.
# Command:   python tools/train.py configs/boat_swin/\
#                upernet_boat-swin-nano_1xb8-8e_digits.py
# Hardware:  two CPU cores, about 4 minutes
# Expected:  mIoU 66
_base_ = [
    '../_base_/models/upernet_boat-swin.py',
    '../_base_/datasets/digits_semantic.py',
    '../_base_/digits_runtime.py',
]
default_scope = 'mmseg'
max_epochs = 8
norm_cfg = dict(type='BN', requires_grad=True)
# Four pixels of five are background.
class_weight = [0.2] + [1.0] * 10

model = dict(
    # mmseg 1.2 cannot weight classes where padding is ignored.
    data_preprocessor=dict(size=(128, 128), seg_pad_val=0),
    backbone=dict(
        arch='nano',
        drop_path_rate=0.0,
        # The usual 0.02 is too small a start for 24 channels from scratch.
        init_cfg=dict(type='Xavier', layer='Linear', distribution='uniform'),
    ),
    decode_head=dict(
        in_channels=[24, 48, 96, 192],
        channels=32,
        num_classes=11,
        norm_cfg=norm_cfg,
        loss_decode=dict(class_weight=class_weight),
    ),
    auxiliary_head=dict(
        in_channels=96,
        channels=64,
        num_classes=11,
        norm_cfg=norm_cfg,
        loss_decode=dict(class_weight=class_weight),
    ),
)

optim_wrapper = dict(optimizer=dict(lr=2e-3))
train_cfg = dict(
    type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=2
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=150),
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
    checkpoint=dict(save_best='mIoU'),
    visualization=dict(type='SegVisualizationHook'),
)
visualizer = dict(
    type='SegLocalVisualizer',
    vis_backends=[dict(type='LocalVisBackend')],
    name='visualizer',
)

auto_scale_lr = dict(enable=False, base_batch_size=8)
