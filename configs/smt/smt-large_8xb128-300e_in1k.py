# SMT-L on ImageNet-1K, with layer scale.
# Command:   bash tools/dist_train.sh \
#                configs/smt/smt-large_8xb128-300e_in1k.py 8
# Hardware:  8 GPUs with 128 images each (other numbers: --auto-scale-lr)
# Expected:  top-1 84.6 (reported by the RMT paper)
_base_ = './smt-tiny_8xb128-300e_in1k.py'

model = dict(
    backbone=dict(arch='large', drop_path_rate=0.4), head=dict(in_channels=768)
)

# The published code decays no vector; those of layer scale are named here.
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys={'gamma': dict(decay_mult=0.0)})
)
