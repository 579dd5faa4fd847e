"""The config section `dataset`: every type's keys, typed, and nothing else."""

import pytest
import yaml

from dfad_seg.common.errors import InputError
from dfad_seg.config import dump_config, parse_config, parse_dataset

COCO = {"type": "coco", "root": "r", "annotation_file": "<split>.json", "image_dir": "<split>"}
FOLDERS = {"type": "folders", "root": "r", "img_dir": "i", "ann_dir": "a", "classes": ["x", "y"]}


def config(dataset):
    student = {"source": "smp", "arch": "unet"}
    return parse_config({"method": "supervised", "student": student, "dataset": dataset})


@pytest.mark.parametrize(
    "dataset",
    [
        {"type": "voc", "root": "r"},
        {**COCO, "category_map": {"cat": "animal"}, "background": False, "unlisted": "ignore", "palette": [[1, 2, 3]]},
        {**FOLDERS, "label_map": {0: 1, 7: 255}, "reduce_zero_label": True, "split_file": "<split>.txt"},
    ],
)
def test_sections_read_back_equal(dataset):
    read = config(dataset)
    assert parse_config(yaml.safe_load(dump_config(read))) == read
    given = {key: value for key, value in dataset.items() if key not in ("type", "root")}
    assert yaml.safe_load(yaml.safe_dump(_lists(read.dataset.options()))) == given


def _lists(value):
    if isinstance(value, dict):
        return {key: _lists(inner) for key, inner in value.items()}
    return [_lists(inner) for inner in value] if isinstance(value, tuple) else value


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ({"type": "voc"}, "dataset.root: this key is needed"),
        ({"type": "vco", "root": "r"}, "unknown data set type 'vco'. Did you mean 'voc'"),
        ({"type": "voc", "root": "r", "classes": ["a"]}, "data set type voc: classes: unknown key"),
        ({**COCO, "reduce_zero_label": True}, "data set type coco: reduce_zero_label: unknown key"),
        ({"type": "folders", "root": "r", "img_dir": "i"}, "ann_dir: this key is needed.\\s*classes: this key is"),
        ({**FOLDERS, "img_sufix": ".png"}, "img_sufix: unknown key. Did you mean 'img_suffix'"),
        ({**FOLDERS, "label_map": {0: 256}}, "label_map.0: input should be less than or equal to 255, got 256"),
        ({**FOLDERS, "label_map": {"road": 1}}, "label_map.road"),
        ({**FOLDERS, "palette": [[0, 0, 300]]}, "palette.0.2: input should be less than or equal to 255"),
        ({**FOLDERS, "classes": "road"}, "classes: input should be a valid tuple, got 'road'"),
        ({**COCO, "unlisted": "drop"}, "unlisted: input should be 'background' or 'ignore', got 'drop'"),
    ],
)
def test_mistakes_are_named(dataset, message):
    with pytest.raises(InputError, match=message):
        config(dataset)


def test_the_section_of_a_command_line():
    section = parse_dataset("folders", "r", ["img_dir=i", "ann_dir=a", "classes=[x, y]", "label_map={3: 1}"])
    assert section.options() == {"img_dir": "i", "ann_dir": "a", "classes": ("x", "y"), "label_map": {3: 1}}
