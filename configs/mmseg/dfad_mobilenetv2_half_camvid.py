# The distillation of dfad_camvid_cpu.yaml in MMSegmentation's own runner:
#   python MMSEG/tools/train.py configs/mmseg/dfad_mobilenetv2_half_camvid.py
# It ends with work_dirs/dfad_mobilenetv2_half_camvid/student/student.{py,pth}, a plain network of MMSegmentation.
_base_ = ["_base_/student_mobilenetv2_half.py", "_base_/camvid.py", "_base_/runtime.py", "_base_/data_free.py"]
model = dict(
    _delete_=True,
    type="DataFreeDistiller",
    teacher=dict(
        config="configs/mmseg/teacher_deeplabv3plus_mobilenetv2_camvid.py",
        checkpoint="work_dirs/teacher_deeplabv3plus_mobilenetv2_camvid/iter_300.pth",
    ),
    student={{_base_.model}},
    generator=dict(
        type="LayoutGenerator",
        width=16,
        class_frequencies="moments",
        recalled=0.75,
        boxes=6,
    ),
    student_loss=dict(type="DFADLoss", discrepancies=dict(kl=1.0, mae=0.2)),
    adversarial_loss=dict(type="DFADLoss", discrepancies=dict(jensen_shannon=1.0)),
    adversarial_weight=0.5,
    priors=dict(batch_norm_prior=10.0, layout_consistency=1.0),
    batch_size=8,
    image_size=(96, 128),
    student_steps=4,
    student_norm="batch",
)
# Numbers of iterations are all that training reads; the data sets of the base serve validation and tests.
train_dataloader = dict(_delete_=True, batch_size=1, num_workers=0, sampler=None, dataset=dict(type="IterationNumbers"))
optim_wrapper = dict(
    constructor="PlayersConstructor",
    student=dict(
        type="OptimWrapper",
        optimizer=dict(type="AdamW", lr=2e-3, weight_decay=1e-4),
        clip_grad=dict(max_norm=5.0),
    ),
    generator=dict(
        type="OptimWrapper", optimizer=dict(type="Adam", lr=2e-3, betas=(0.5, 0.99)), clip_grad=dict(max_norm=5.0)
    ),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.2, begin=0, end=5, by_epoch=False),
    dict(type="CosineAnnealingLR", T_max=55, begin=5, end=60, by_epoch=False),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=60, val_interval=60)
randomness = dict(seed=0)
