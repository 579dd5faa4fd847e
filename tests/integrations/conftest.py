"""A tiny network and a tiny data set in MMSegmentation's form. All of these tests run against its real packages."""

import importlib.util
import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

if importlib.util.find_spec("mmseg") is None or importlib.util.find_spec("mmengine") is None:
    REASON = "MMSegmentation is not installed; `make test-mmseg` runs these tests in an environment that has it"
else:
    REASON = ""

CLASSES = ["road", "sky", "tree", "car"]
PALETTE = [[128, 64, 128], [70, 130, 180], [107, 142, 35], [0, 0, 142]]
CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "mmseg"

NETWORK = """
norm_cfg = dict(type="SyncBN", requires_grad=True)
model = dict(
    type="EncoderDecoder",
    pretrained="open-mmlab://resnet18_v1c",
    data_preprocessor=dict(
        type="SegDataPreProcessor", mean=[120.0, 110.0, 100.0], std=[60.0, 55.0, 50.0], bgr_to_rgb=True,
        size=(32, 32), seg_pad_val=255,
    ),
    backbone=dict(
        type="FastSCNN", downsample_dw_channels=(8, 12), global_in_channels=16, global_block_channels=(16, 16, 16),
        global_block_strides=(2, 2, 1), global_out_channels=16, higher_in_channels=16, lower_in_channels=16,
        fusion_out_channels=16, norm_cfg=norm_cfg, align_corners=False,
    ),
    decode_head=dict(
        type="FCNHead", in_channels=16, channels=8, num_convs=1, concat_input=False, in_index=-1, num_classes=4,
        dropout_ratio=0.0, norm_cfg=norm_cfg, align_corners=False, loss_decode=dict(type="CrossEntropyLoss"),
    ),
    auxiliary_head=dict(
        type="FCNHead", in_channels=16, channels=4, num_convs=1, num_classes=4, in_index=-2, norm_cfg=norm_cfg,
        concat_input=False, align_corners=False, loss_decode=dict(type="CrossEntropyLoss", loss_weight=0.4),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
"""

DATA = """
default_scope = "mmseg"
metainfo = dict(classes={classes}, palette={palette})
train_pipeline = [
    dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"),
    dict(type="RandomCrop", crop_size=(32, 32)), dict(type="PackSegInputs"),
]
test_pipeline = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")]
data = dict(
    type="BaseSegDataset", data_root="{root}", metainfo=metainfo, img_suffix=".png", seg_map_suffix=".png",
    data_prefix=dict(img_path="img_dir", seg_map_path="ann_dir"),
)
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(pipeline=train_pipeline, **data),
)
val_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(pipeline=test_pipeline, **data),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"])
test_evaluator = val_evaluator
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
vis_backends = [dict(type="LocalVisBackend")]
visualizer = dict(type="SegLocalVisualizer", vis_backends=vis_backends, name="visualizer")
log_processor = dict(by_epoch=False)
default_hooks = dict(
    timer=dict(type="IterTimerHook"), logger=dict(type="LoggerHook", interval=1, log_metric_by_epoch=False),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=2),
    visualization=dict(type="SegVisualizationHook", interval=1),
)
env_cfg = dict(cudnn_benchmark=False, mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
               dist_cfg=dict(backend="gloo"))
randomness = dict(seed=3)
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.05, momentum=0.9))
param_scheduler = [dict(type="PolyLR", eta_min=1e-4, power=0.9, begin=0, end=4, by_epoch=False)]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=2, val_interval=2)
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.mmseg)
            if REASON:
                item.add_marker(pytest.mark.skip(reason=REASON))


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`img_dir` and `ann_dir`: four images of 37x53 pixels whose colours tell the class; some pixels are ignored."""
    import numpy as np
    from PIL import Image

    root = tmp_path_factory.mktemp("folders")
    rng = np.random.default_rng(5)
    for kind in ("img_dir", "ann_dir"):
        (root / kind).mkdir()
    for i in range(4):
        coarse = rng.integers(0, len(CLASSES), (5, 7))
        labels = coarse.repeat(8, axis=0).repeat(8, axis=1)[:37, :53].astype(np.uint8)
        image = np.array(PALETTE, dtype=np.int64)[labels] + rng.integers(-40, 40, (37, 53, 3))
        labels[rng.random(labels.shape) < 0.05] = 255
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(root / "img_dir" / f"{i}.png")
        Image.fromarray(labels).save(root / "ann_dir" / f"{i}.png")
    return root


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory: pytest.TempPathFactory, folders: Path) -> Path:
    """A whole config of theirs: a tiny network with an auxiliary head, and `folders`."""
    path = tmp_path_factory.mktemp("config") / "tiny.py"
    path.write_text(NETWORK + DATA.format(classes=CLASSES, palette=PALETTE, root=folders))
    return path


@pytest.fixture(scope="session")
def tool() -> Callable[..., None]:
    """`tool("test", ...)` runs MMSegmentation's own, unmodified tools/test.py in this process."""
    import mmseg
    from mmengine.utils import ManagerMixin
    from mmseg.visualization import SegLocalVisualizer

    folder = Path(mmseg.__file__).parent / ".mim" / "tools"

    def run(name: str, *arguments: Any) -> None:
        before = sys.argv
        # As in a process of its own: a visualiser of the last run would write into that run's folder.
        for kind in (SegLocalVisualizer, *SegLocalVisualizer.__mro__):
            if isinstance(kind, type(ManagerMixin)):
                kind._instance_dict.clear()
        sys.argv = [f"{name}.py", *map(str, arguments)]
        try:
            runpy.run_path(str(folder / f"{name}.py"), run_name="__main__")
        finally:
            sys.argv = before

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_config: Path, tool: Callable[..., None]) -> Path:
    """A checkpoint that their tools/train.py wrote, with optimiser and log."""
    work_dir = tmp_path_factory.mktemp("trained")
    tool("train", tiny_config, "--work-dir", work_dir, "--cfg-options", "model.pretrained=None")
    return work_dir / "iter_2.pth"


@pytest.fixture
def helpers() -> SimpleNamespace:
    """What the test files share, as they cannot import from here in every import mode of pytest."""
    return SimpleNamespace(classes=CLASSES, palette=PALETTE, configs=CONFIGS, printed=printed)


def printed(work_dir: Path) -> dict[str, float]:
    """aAcc, mIoU, mAcc in per cent, to the two digits that their tools/test.py prints, from its work directory."""
    files = sorted(Path(work_dir).glob("*/*.json"))
    found = json.loads(files[-1].read_text())
    return {name: round(found[name], 2) for name in ("aAcc", "mIoU", "mAcc")}
