# python tools/train.py \
#     configs/perspective_unet/perspective-unet-nano_1xb8-8e_digits.py
_base_ = '../boat_swin/upernet_boat-swin-nano_1xb8-8e_digits.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmattn.PerspectiveEncoder',
        arch='nano',
        drop_path_rate=0.0,
    ),
    decode_head=dict(
        _delete_=True,
        type='mmattn.PerspectiveHead',
        in_channels=[8, 16, 32, 64, 128],
        channels=8,
        num_classes=11,
        dropout_ratio=0.0,
        loss_decode=[
            dict(type='CrossEntropyLoss', loss_weight=0.4),
            # Dice of each class, see the config for Synapse.
            dict(type='TverskyLoss', alpha=0.5, beta=0.5, loss_weight=0.6),
        ],
    ),
    auxiliary_head=None,
)

# At the 2e-3 of its base it finds the background alone, at this rate it has
# begun to tell digits apart after 8 epochs.
optim_wrapper = dict(optimizer=dict(lr=1e-2))
