"""Data sets that a config describes, through the pipeline: classes, training batches, and the tools."""

import numpy as np
import pytest
import yaml
from coco_samples import OPTIONS, content, write_set
from lightning_fabric import Fabric
from shared import STUDENT, call_tool, experiment, save_image, write_yaml

from dfad_seg.common.errors import InputError
from dfad_seg.config import parse_config
from dfad_seg.recipes.build import meta_info, training_batches
from dfad_seg.recipes.provenance import real_images

SIZE = (32, 48)
# Label 1 on the left, label 0 on the right, and a corner that is ignored.
LABELS = np.where(np.arange(SIZE[1])[None] < 30, 1, np.zeros(SIZE, int))
LABELS[:4, :4] = 255
FABRIC = Fabric(accelerator="cpu", devices=1)


@pytest.fixture
def described(tmp_path):
    """A config that trains on such images in sub-folders; their masks are the labels plus one, and 0 is ignored."""
    for split in ("train", "val"):
        for name in "ab":
            photo = np.random.default_rng(0).integers(0, 256, (*SIZE, 3))
            save_image(tmp_path / "data" / "img" / split / "deep" / f"{name}.jpg", photo)
            mask = np.where(LABELS == 255, 0, LABELS + 1)
            save_image(tmp_path / "data" / "ann" / split / "deep" / f"{name}_seg.png", mask)
    section = {"type": "folders", "root": str(tmp_path / "data"), "img_dir": "img/<split>", "ann_dir": "ann/<split>"}
    section |= {"seg_map_suffix": "_seg.png", "reduce_zero_label": True, "classes": ["right", "left"]}
    training = {"num_workers": 0, "hflip": False}
    return experiment("supervised", "", teacher=STUDENT, dataset=section, training_data=training, iterations=1)


def test_a_described_set_is_trained_on(described):
    config = parse_config(described)
    assert meta_info(config).classes == ("right", "left")
    batch = next(iter(training_batches(config, FABRIC)(0)))
    assert batch["image"].shape == (2, 3, *SIZE)
    np.testing.assert_array_equal(batch["mask"], np.stack([LABELS] * 2))
    use = real_images(config)[0]
    assert described["dataset"].items() <= {"type": use.dataset, "root": use.root, **use.options}.items()
    with pytest.raises(InputError, match="num_classes is 7, but folders has 2 classes"):
        meta_info(parse_config(described | {"num_classes": 7}))


def test_splits_of_different_classes_are_refused(tmp_path):
    for split, odd in (("train", "strange"), ("val", "odd")):
        categories = [{"id": 5, "name": "left"}, {"id": 9, "name": odd}]
        write_set(tmp_path, content() | {"categories": categories}, split)
    section = {"type": "coco", "root": str(tmp_path), **OPTIONS}
    more = {"student": STUDENT, "dataset": section, "evaluation": ..., "training_data": {"num_workers": 0}}
    config = parse_config(experiment("supervised", "", **more))
    assert meta_info(config).classes == ("background", "left", "odd")  # of the smaller file, val.json
    with pytest.raises(InputError, match="split 'train' .*has the classes background, left, strange, and another"):
        training_batches(config, FABRIC)


def test_the_tools_know_the_classes_of_a_described_set(described, tmp_path, capsys):
    config, run, pictures = write_yaml(tmp_path / "c.yaml", described), tmp_path / "run", tmp_path / "pictures"
    assert call_tool("train", config, "--work-dir", run) == 0
    assert described["dataset"].items() <= yaml.safe_load((run / "config.yaml").read_text())["dataset"].items()
    capsys.readouterr()
    assert call_tool("eval", config, run / "teacher.pt", "--role", "teacher", "--show-dir", pictures) == 0
    shown = capsys.readouterr().out
    assert sorted(path.name for path in (pictures / "deep").iterdir()) == ["a.png", "b.png"]
    assert "right" in shown and "left" in shown
    # The same network on a set of as many, but other, classes.
    described["dataset"]["classes"] = ["left", "right"]
    other = write_yaml(tmp_path / "d.yaml", described)
    assert call_tool("eval", other, run / "teacher.pt", "--role", "teacher") == 2
    assert "its class 0 is 'right', and this experiment's is 'left'" in capsys.readouterr().err
