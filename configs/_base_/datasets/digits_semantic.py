# Digit scenes with class maps in the layout of ADE20K, for mmseg. Make them
# with `python tools/make_digit_scenes.py`. Unlike in ADE20K, index 0 is a
# class (the background); digit d has index d + 1. No flips: a mirrored digit
# is another.
dataset_type = 'BaseSegDataset'
data_root = 'data/digit_scenes/'
metainfo = dict(
    classes=('background', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9'),
    palette=[
        (40, 40, 40),
        (230, 25, 75),
        (60, 180, 75),
        (255, 225, 25),
        (67, 99, 216),
        (245, 130, 49),
        (145, 30, 180),
        (70, 240, 240),
        (240, 50, 230),
        (188, 246, 12),
        (250, 190, 190),
    ],
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]

# Learning the class of every pixel takes longer than that of a box: an epoch
# goes three times over the 400 scenes.
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='RepeatDataset',
        times=3,
        dataset=dict(
            type=dataset_type,
            data_root=data_root,
            metainfo=metainfo,
            img_suffix='.png',
            seg_map_suffix='.png',
            data_prefix=dict(
                img_path='images/training', seg_map_path='annotations/training'
            ),
            pipeline=train_pipeline,
        ),
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        metainfo=metainfo,
        img_suffix='.png',
        seg_map_suffix='.png',
        data_prefix=dict(
            img_path='images/validation',
            seg_map_path='annotations/validation',
        ),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
