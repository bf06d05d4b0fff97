# Synapse multi-organ CT, slices prepared as mmseg's `tools/dataset_converters/
# synapse.py` lays them out: jpg images and png class maps, nine classes.
dataset_type = 'SynapseDataset'
data_root = 'data/synapse/'
size = (224, 224)
resize = dict(
    type='Resize', scale=size, keep_ratio=False, interpolation='bicubic'
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(**resize),
    # The published recipe draws 0 to 4 of ten augmentations. Flips and turns
    # are here, each as often as there; what turns up is background. Scales,
    # shears, shifts, warps, noise, blur and contrast are left out.
    dict(
        type='RandomFlip',
        prob=[0.1, 0.1],
        direction=['horizontal', 'vertical'],
    ),
    dict(type='RandomRotate', prob=0.2, degree=40, seg_pad_val=0),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(**resize),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]

train_dataloader = dict(
    batch_size=12,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(
            img_path='img_dir/train', seg_map_path='ann_dir/train'
        ),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='img_dir/val', seg_map_path='ann_dir/val'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='IoUMetric', iou_metrics=['mDice'])
test_evaluator = val_evaluator
