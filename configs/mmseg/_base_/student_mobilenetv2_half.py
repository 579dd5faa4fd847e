# A student of half the width and a slim head, from random weights.
_base_ = "deeplabv3plus_mobilenetv2.py"
model = dict(
    backbone=dict(widen_factor=0.5),
    decode_head=dict(in_channels=160, c1_in_channels=16, channels=64, c1_channels=24),
    auxiliary_head=None,
)
