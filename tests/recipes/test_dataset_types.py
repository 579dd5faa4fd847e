"""Data sets that a config describes, through the pipeline: classes, training batches, and the tools."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest_pipeline import STUDENT, call_tool, tiny, write
from lightning_fabric import Fabric
from PIL import Image

from dfad_seg.common.errors import InputError
from dfad_seg.config import parse_config
from dfad_seg.recipes.build import meta_info, training_batches
from dfad_seg.recipes.provenance import real_images

sys.path.insert(0, str(Path(__file__).parents[1] / "datasets"))

from coco_samples import annotation, compressed  # noqa: E402

SIZE = (32, 48)
LEFT = np.arange(SIZE[1])[None] < 30
# Label 1 on the left, label 0 on the right, and a corner that is ignored.
LABELS = np.where(LEFT, 1, np.zeros(SIZE, int))
LABELS[:4, :4] = 255


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


def images(folder):
    for name in "ab":
        save(folder / f"{name}.jpg", np.random.default_rng(0).integers(0, 256, (*SIZE, 3)))


def folders(root):
    for split in ("train", "val"):
        images(root / "img" / split / "deep")
        for name in "ab":
            save(root / "ann" / split / "deep" / f"{name}_seg.png", np.where(LABELS == 255, 0, LABELS + 1))
    options = {"img_dir": "img/<split>", "ann_dir": "ann/<split>", "seg_map_suffix": "_seg.png"}
    return {"type": "folders", "reduce_zero_label": True, "classes": ["right", "left"], **options}, ("right", "left")


def coco(root):
    corner = (LABELS == 255).astype(np.uint8)
    for split in ("train", "val"):
        images(root / split)
        regions = ((0, 0, (LABELS == 1).astype(np.uint8)), (1, 1, corner))
        values = {
            "images": [{"id": i, "file_name": f"{'ab'[i]}.jpg", "height": SIZE[0], "width": SIZE[1]} for i in (0, 1)],
            "categories": [{"id": 5, "name": "left"}, {"id": 9, "name": "odd"}],
            "annotations": [
                annotation(2 * i + n, 5, compressed(r), image=i, crowd=c) for i in (0, 1) for n, c, r in regions
            ],
        }
        (root / f"{split}.json").write_text(json.dumps(values))
    options = {"annotation_file": "<split>.json", "image_dir": "<split>", "classes": ["left"]}
    return {"type": "coco", **options}, ("background", "left")


TYPES = {"folders": folders, "coco": coco}


@pytest.mark.parametrize("kind", TYPES)
def test_a_described_set_is_trained_on(tmp_path, kind):
    section, classes = TYPES[kind](tmp_path)
    values = tiny("supervised", tmp_path, student=STUDENT, training_data={"num_workers": 0, "hflip": False})
    values |= {"dataset": {**section, "root": str(tmp_path)}, "evaluation": {"split": "val", "num_workers": 0}}
    config = parse_config(values)
    assert meta_info(config).classes == classes
    batch = next(iter(training_batches(config, Fabric(accelerator="cpu", devices=1))(0)))
    assert batch["image"].shape == (2, 3, *SIZE)
    np.testing.assert_array_equal(batch["mask"], np.stack([LABELS] * 2))
    use = real_images(config)[0]
    assert (
        use.dataset == kind and use.root == str(tmp_path) and section.items() <= {"type": kind, **use.options}.items()
    )
    with pytest.raises(InputError, match=f"num_classes is 7, but {kind} has {len(classes)} classes"):
        meta_info(parse_config(values | {"num_classes": 7}))


def test_splits_of_different_classes_are_refused(tmp_path):
    section, _ = coco(tmp_path)
    path = tmp_path / "train.json"
    path.write_text(path.read_text().replace('"odd"', '"strange"'))
    del section["classes"]
    values = tiny("supervised", tmp_path, student=STUDENT, evaluation=..., training_data={"num_workers": 0})
    config = parse_config(values | {"dataset": {**section, "root": str(tmp_path)}})
    assert meta_info(config).classes == ("background", "left", "odd")  # of the smaller file, val.json
    with pytest.raises(InputError, match="split 'train' .*has the classes background, left, strange, and another"):
        training_batches(config, Fabric(accelerator="cpu", devices=1))


def test_the_tools_know_the_classes_of_a_described_set(tmp_path, capsys):
    section, classes = folders(tmp_path / "data")
    values = tiny("supervised", tmp_path / "data", teacher={**STUDENT}, training_data={"num_workers": 0}, iterations=1)
    values["dataset"] = {**section, "root": str(tmp_path / "data")}
    config = write(tmp_path / "c.yaml", values)
    run = tmp_path / "run"
    assert call_tool("train", config, "--work-dir", run) == 0
    assert values["dataset"].items() <= yaml.safe_load((run / "config.yaml").read_text())["dataset"].items()
    capsys.readouterr()
    pictures = tmp_path / "pictures"
    assert call_tool("eval", config, run / "teacher.pt", "--role", "teacher", "--show-dir", pictures) == 0
    shown = capsys.readouterr().out
    assert sorted(path.name for path in (pictures / "deep").iterdir()) == ["a.png", "b.png"]
    assert all(name in shown for name in classes)
    # The same network on a set of as many, but other, classes.
    values["dataset"]["classes"] = ["left", "right"]
    other = write(tmp_path / "d.yaml", values)
    assert call_tool("eval", other, run / "teacher.pt", "--role", "teacher") == 2
    assert "its class 0 is 'right', and this experiment's is 'left'" in capsys.readouterr().err
