# A teacher of CPU size, trained by MMSegmentation itself:
#   python MMSEG/tools/train.py configs/mmseg/teacher_deeplabv3plus_mobilenetv2_camvid.py
# Better from ImageNet weights: --cfg-options model.backbone.init_cfg.type=Pretrained \
#   model.backbone.init_cfg.checkpoint=FILE
_base_ = ["_base_/deeplabv3plus_mobilenetv2.py", "_base_/camvid.py", "_base_/runtime.py"]
optim_wrapper = dict(
    type="OptimWrapper", optimizer=dict(type="SGD", lr=0.05, momentum=0.9, weight_decay=0.0005), clip_grad=None
)
param_scheduler = [dict(type="PolyLR", eta_min=1e-4, power=0.9, begin=0, end=300, by_epoch=False)]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=300, val_interval=300)
