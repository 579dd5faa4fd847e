"""Random damage to configs, checkpoints, masks, annotations: either it is read, or one `InputError` says why."""

import io
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from attack import of_bytes
from attack_tables import GOOD_COCO
from damage import places, put
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dfad_seg.common.errors import InputError
from dfad_seg.common.images import IndexReader, read_photo
from dfad_seg.common.tensors import read_tensors
from dfad_seg.config import Config, dump_config, load_config
from dfad_seg.datasets.coco import render
from dfad_seg.datasets.coco_file import read_coco
from dfad_seg.segmentors.containers import find_state_dict

FEW, MANY = 40, 1000
GOOD_CONFIG = {
    "method": "dfad",
    "teacher": {"source": "smp", "arch": "Unet", "checkpoint": "t.pt"},
    "student": {"source": "smp", "arch": "Unet"},
    "generator": {"type": "layout", "width": 8},
    "dataset": {"type": "folders", "root": ".", "img_dir": "a", "ann_dir": "b", "classes": ["x", "y"]},
    "evaluation": {"split": "val", "scales": [0.5, 1.0], "crop_size": [8, 8]},
    "schedule": {"type": "step", "every": 3},
    "progressive_sizes": [[64, 64], [128, 128]],
    "replay": {"size": 300, "steps": 1},
    "student_loss": {"mae": 1.0},
    "student_optimizer": {"type": "sgd", "lr": 0.1},
}
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_subnormal=False)
    | st.text(max_size=8)
    | st.sampled_from(["sgd", "val", "mae"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


def damaged(good):
    """Good content with another value at one to three places, or none."""

    @st.composite
    def draw_it(draw):
        content = good
        for _ in range(draw(st.integers(1, 3))):
            at = draw(st.sampled_from(list(places(content))))
            content = put(content, at, draw(VALUES | st.just(...))) if at else content
        return content

    return draw_it()


def spoiled(good):
    """Good bytes with a few changed, cut or inserted."""
    return st.integers(0).map(lambda seed: list(of_bytes(good, random.Random(seed), 1))[-1][1])


def in_file(content, name, read):
    """What `read` makes of a file with this content; None where it is refused."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        try:
            return read(path)
        except InputError as refused:
            assert 10 < len(str(refused)) < 5000
            return None


def bytes_of(save):
    handle = io.BytesIO()
    save(handle)
    return handle.getvalue()


def check_config_values(values):
    config = in_file(yaml.safe_dump(values, allow_unicode=True).encode("utf-8", "replace"), "c.yaml", load_config)
    if config is not None:
        assert isinstance(config, Config)
        # Not the configs themselves: a source's option that is null is left out when written.
        again = in_file(dump_config(config).encode(), "c.yaml", load_config)
        assert again is not None and dump_config(again) == dump_config(config)


TENSORS = st.sampled_from([torch.zeros(2), torch.zeros(1).expand(9), torch.zeros(()), torch.zeros(0)])
KEYS = st.sampled_from(["module.", "model.", "network.", "_orig_mod.", "state_dict", "a", "weight"])
NESTED = st.recursive(
    TENSORS | st.none() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.dictionaries(st.lists(KEYS, max_size=3).map("".join) | st.integers(), inner, max_size=4)
        | st.lists(inner, max_size=3)
    ),
    max_leaves=12,
)


def check_config_text(data):
    config = in_file(data, "c.yaml", load_config)
    assert config is None or isinstance(config, Config)


def check_keys(content):
    try:
        state = find_state_dict(content, "x.pt")
    except InputError:
        return
    assert state and all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items())
    # Nothing got lost under a name that became another's.
    sizes = [len(node) for node in mappings(content) if node and all(torch.is_tensor(v) for v in node.values())]
    assert len(state) in sizes


def mappings(node):
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from mappings(value)


def check_checkpoint(data):
    state = in_file(data, "x.pt", lambda path: find_state_dict(read_tensors(path), path))
    assert state is None or all(isinstance(value, torch.Tensor) for value in state.values())


def check_mask(data):
    mask = in_file(data, "m.png", IndexReader().read)
    assert mask is None or (mask.dtype == np.uint8 and mask.ndim == 2)


def check_image(data):
    photo = in_file(data, "i.jpg", read_photo)
    assert photo is None or (photo.pixels.dtype == np.uint8 and photo.pixels.shape[2:] == (3,))


def check_coco(content):
    found = in_file(json.dumps(content).encode(), "x.json", read_coco)
    for image in [] if found is None else found.images:
        if image.size[0] * image.size[1] < 10**6:
            labels = render(image, {number: 0 for number in found.categories}, uncovered=255)
            assert labels.shape == image.size


MASK = bytes_of(lambda h: Image.fromarray(np.arange(96, dtype=np.uint8).reshape(8, 12)).save(h, "PNG"))
PHOTO = bytes_of(lambda h: Image.fromarray(np.zeros((8, 12, 3), np.uint8)).save(h, "JPEG"))
NETWORK = bytes_of(lambda h: torch.save({"state_dict": {"module.a": torch.arange(9.0)}}, h))
CASES = {
    "config values": (check_config_values, damaged(GOOD_CONFIG)),
    "config text": (check_config_text, spoiled(yaml.safe_dump(GOOD_CONFIG).encode()) | st.binary(max_size=60)),
    "keys": (check_keys, NESTED),
    "checkpoint": (check_checkpoint, spoiled(NETWORK)),
    "mask": (check_mask, spoiled(MASK)),
    "image": (check_image, spoiled(PHOTO)),
    "annotations": (check_coco, damaged(GOOD_COCO)),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "examples", [FEW, pytest.param(MANY, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])], ids=["few", "many"]
)
@pytest.mark.parametrize("case", CASES)
def test_damaged_input(case, examples):
    check, inputs = CASES[case]
    how = {"derandomize": examples == FEW, "suppress_health_check": list(HealthCheck)}
    settings(max_examples=examples, deadline=None, **how)(given(inputs)(check))()


@pytest.mark.soak
@pytest.mark.timeout(5400)
def test_every_command_against_every_kind_of_file(tmp_path):
    """In a process that never made a backward pass; `attack.py` says how, and takes a seed."""
    script = Path(__file__).parent / "attack.py"
    subprocess.run([sys.executable, script, "--seed", "0"], env=os.environ | {"TMPDIR": str(tmp_path)}, check=True)
