# BOAT-Swin nano, single digits on photographs, 25 epochs.
# Command:   python tools/train.py configs/boat_swin/\
#                boat-swin-nano_1xb32-25e_digits.py
# Hardware:  two CPU cores, about 3 minutes
# Expected:  top-1 87 %
_base_ = [
    '../_base_/datasets/digits_crops.py',
    '../_base_/digits_runtime.py',
]
default_scope = 'mmpretrain'
max_epochs = 25

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmattn.BOATSwin',
        arch='nano',
        out_indices=(3,),
        drop_path_rate=0.0,
        # The usual 0.02 is too small a start for 24 channels from scratch.
        init_cfg=dict(type='Xavier', layer='Linear', distribution='uniform'),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=192,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
    ),
)

train_cfg = dict(
    type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=5
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=90),
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        begin=2,
        end=max_epochs,
        eta_min_ratio=0.01,
        convert_to_iter_based=True,
    ),
]
default_hooks = dict(
    checkpoint=dict(save_best='accuracy/top1'),
    visualization=dict(type='VisualizationHook', enable=False),
)
visualizer = dict(
    type='UniversalVisualizer',
    vis_backends=[dict(type='LocalVisBackend')],
)

auto_scale_lr = dict(enable=False, base_batch_size=32)
