# Perspective+ U-Net on the slices of Synapse, 600 epochs.
# Command:   python tools/train.py configs/perspective_unet/\
#                perspective-unet_1xb12-600e_synapse-224x224.py
# Hardware:  1 GPU with 12 images (other numbers: --auto-scale-lr)
# Expected:  Dice 84.63 by volume, reported by the paper with dropout, more
#            augmentations and an integrator that attends over the batch;
#            mDice here counts pixels of slices
_base_ = [
    '../_base_/datasets/synapse_224x224.py',
    '../_base_/mmseg_runtime.py',
]
max_epochs = 600

model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        # From 0..255 to -1..1; the three channels of a slice are one.
        mean=[127.5, 127.5, 127.5],
        std=[127.5, 127.5, 127.5],
        size=(224, 224),
        pad_val=0,
        seg_pad_val=255,
    ),
    backbone=dict(type='mmattn.PerspectiveEncoder', arch='base'),
    decode_head=dict(
        type='mmattn.PerspectiveHead',
        in_channels=[128, 256, 512, 1024],
        channels=64,
        num_classes=9,
        dropout_ratio=0.0,
        loss_decode=[
            dict(type='CrossEntropyLoss', loss_weight=0.4),
            # Soft Dice of each class, background included: Tversky at equal
            # weights. mmseg's DiceLoss counts all classes as one, nearly all
            # background. The published one squares the probabilities in the
            # denominator and counts the pixels of a batch, not of an image.
            dict(type='TverskyLoss', alpha=0.5, beta=0.5, loss_weight=0.6),
        ],
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)

train_cfg = dict(
    type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=20
)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=1e-4),
    # As everywhere here; the published recipe decays norms too.
    paramwise_cfg=dict(
        custom_keys={
            'norm': dict(decay_mult=0.0),
            'bn': dict(decay_mult=0.0),
        }
    ),
)
param_scheduler = [
    dict(
        type='PolyLR',
        power=0.9,
        eta_min=0.0,
        by_epoch=True,
        begin=0,
        end=max_epochs,
        convert_to_iter_based=True,
    )
]
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='CheckpointHook',
        interval=20,
        max_keep_ckpts=3,
        save_best='mDice',
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
)
log_processor = dict(by_epoch=True)
randomness = dict(seed=1234)

auto_scale_lr = dict(enable=False, base_batch_size=12)
