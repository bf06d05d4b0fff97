# COCO 2017 instance segmentation with the multi-scale and crop policy of DETR.
_base_ = [
    'mmdet::_base_/datasets/coco_instance.py',
    './coco_ms-crop_pipeline.py',
]

train_pipeline = _base_.ms_crop_pipeline
train_pipeline[0]['backend_args'] = _base_.backend_args
train_pipeline[1]['with_mask'] = True
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
