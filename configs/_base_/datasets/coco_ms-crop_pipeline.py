# The multi-scale and crop policy of DETR for boxes: half of the images are
# resized to a short side of 480 to 800, the other half are cropped first.
scales = [(side, 1333) for side in range(480, 801, 32)]
ms_crop_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandomChoice',
        transforms=[
            [dict(type='RandomChoiceResize', scales=scales, keep_ratio=True)],
            [
                dict(
                    type='RandomChoiceResize',
                    scales=[(400, 1333), (500, 1333), (600, 1333)],
                    keep_ratio=True,
                ),
                dict(
                    type='RandomCrop',
                    crop_type='absolute_range',
                    crop_size=(384, 600),
                    allow_negative_crop=True,
                ),
                dict(
                    type='RandomChoiceResize', scales=scales, keep_ratio=True
                ),
            ],
        ],
    ),
    dict(type='PackDetInputs'),
]
