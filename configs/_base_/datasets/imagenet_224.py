# ImageNet-1K at 224 x 224 with the augmentation of the Swin recipe, 128 images
# per GPU. RandAugment m9-mstd0.5-inc1 and random erasing 0.25 come from the
# host's file. The recipe also lists colour jitter 0.4, but the published code
# lets RandAugment take its place, and so does this pipeline.
_base_ = 'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py'

# Stated here, so that the config trains with any train.py: mmpretrain's own
# adds these three, mmdet's and mmseg's do not.
loader = dict(
    pin_memory=True,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
)

train_dataloader = dict(batch_size=128, num_workers=8, **loader)
val_dataloader = dict(batch_size=128, num_workers=8, **loader)
test_dataloader = val_dataloader
