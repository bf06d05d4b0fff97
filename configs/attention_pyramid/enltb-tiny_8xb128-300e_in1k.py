# Pyramid of ENLTB, size of Swin-T, on ImageNet-1K.
# Command:   bash tools/dist_train.sh configs/attention_pyramid/\
#                enltb-tiny_8xb128-300e_in1k.py 8
# Hardware:  8 GPUs with 128 images each (other numbers: --auto-scale-lr)
# Expected:  not known: an arch of this project, with Swin's recipe
_base_ = './sliding-window-tiny_8xb128-300e_in1k.py'

model = dict(backbone=dict(arch='enltb-tiny'))
