# Perspective+ U-Net nano, digit scenes, 8 epochs of 1200 images.
# Command:   python tools/train.py configs/perspective_unet/\
#                perspective-unet-nano_1xb8-8e_digits.py
# Hardware:  two CPU cores, about 20 minutes
# Expected:  mIoU 85
_base_ = '../boat_swin/upernet_boat-swin-nano_1xb8-8e_digits.py'
class_weight = {{_base_.class_weight}}

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmattn.PerspectiveEncoder',
        arch='nano',
        drop_path_rate=0.0,
        init_cfg=dict(type='Xavier', layer='Linear', distribution='uniform'),
    ),
    # The loss is that of the other nanos. The Dice of the config for Synapse
    # counts each class in each image: with ten digits, most of which an image
    # does not show, it drives all of them to nothing.
    decode_head=dict(
        _delete_=True,
        type='mmattn.PerspectiveHead',
        in_channels=[16, 32, 64, 128],
        channels=16,
        num_classes=11,
        dropout_ratio=0.0,
        loss_decode=dict(type='CrossEntropyLoss', class_weight=class_weight),
    ),
    # Training only, as in the other nanos, here on the map at stride 8: what
    # comes from below is slow to tell digits apart where the finest map
    # already parts them from the background.
    auxiliary_head=dict(
        in_channels=64, in_index=3, loss_decode=dict(loss_weight=1.0)
    ),
)

# The published optimizer and rate.
optim_wrapper = dict(
    optimizer=dict(
        _delete_=True, type='SGD', lr=0.05, momentum=0.9, weight_decay=1e-4
    )
)
