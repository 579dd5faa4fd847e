"""What is known of MMSegmentation's files without its packages: reading its checkpoints, and what its absence says."""

import importlib.util
import os
import sys
from argparse import Namespace
from types import ModuleType

import numpy as np
import pytest
import torch
from damage import Call

from dfad_seg.common.errors import InputError
from dfad_seg.common.tensors import read_tensors
from dfad_seg.segmentors import build_segmentor, find_state_dict, load_segmentor, save_segmentor
from dfad_seg.segmentors.mmseg_files import runs_code

WEIGHTS = {"backbone.conv.weight": torch.arange(4.0), "decode_head.conv_seg.bias": torch.ones(2)}
BUFFER = "mmengine.logging.history_buffer"


class HistoryBuffer:
    """As MMEngine pickles its log: arrays, and a table of its own methods."""

    def minimum(self):
        return None

    def __init__(self):
        self.history = np.array([1.0, 2.0])
        self.methods = {"min": HistoryBuffer.minimum}


def training_checkpoint(path, monkeypatch, **more):
    with monkeypatch.context() as patch:
        for name in ("mmengine", "mmengine.logging", BUFFER):
            patch.setitem(sys.modules, name, ModuleType(name))
        HistoryBuffer.__module__ = BUFFER
        sys.modules[BUFFER].HistoryBuffer = HistoryBuffer
        log = {"log_scalars": {"train/loss": HistoryBuffer()}, "runtime_info": {"best": np.float64(0.5)}}
        content = {"state_dict": WEIGHTS, "message_hub": log, "meta": {"dataset_meta": {"classes": ("a", "b")}}, **more}
        torch.save(content, path)
    return path


def test_a_training_checkpoint_is_read_without_its_log(tmp_path, monkeypatch):
    path = training_checkpoint(tmp_path / "iter_10.pth", monkeypatch)
    with pytest.raises(Exception, match="weights_only|WeightsUnpickler"):
        torch.load(path, weights_only=True)
    state = find_state_dict(read_tensors(path), path)
    assert all(torch.equal(state[key], value) for key, value in WEIGHTS.items()) and state.keys() == WEIGHTS.keys()
    buffer = read_tensors(path)["message_hub"]["log_scalars"]["train/loss"]
    assert type(buffer).__name__ == "Inert" and vars(buffer) == {}


def test_a_log_does_not_open_the_door_for_anything_else(tmp_path, monkeypatch):
    trace = tmp_path / "executed"
    path = training_checkpoint(tmp_path / "evil.pth", monkeypatch, hook=Call(os.system, f"touch {trace}"))
    with pytest.raises(InputError, match="Python objects .*system.*refused"):
        read_tensors(path)
    assert not trace.exists()
    for number, extra in enumerate((Call(getattr, "text", "upper"), Namespace(out=tmp_path))):  # placeholders
        path = training_checkpoint(tmp_path / f"{number}.pth", monkeypatch, extra=extra)
        assert type(read_tensors(path)["extra"]).__name__ == "Inert"


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (None, False),
        ({"type": "EncoderDecoder", "backbone": {"type": "ResNetV1c", "norm_cfg": {"type": "BN"}}}, False),
        ({"type": "EncoderDecoder", "backbone": {"type": "os.system"}}, True),
        ({"type": "EncoderDecoder", "heads": [{"type": "mmpretrain.Head"}]}, True),
        ({"type": "DFADSegmentor", "segmentor": {}}, True),
        ({"type": "EncoderDecoder", "heads": [{"type": "FCNHead", "_scope_": "evil"}]}, True),
    ],
)
def test_which_stored_networks_run_code(model, expected):
    assert runs_code({"source": "mmseg", "model": model}) is expected


def test_a_stored_network_that_runs_code_needs_trust(tmp_path):
    network = build_segmentor("smp", num_classes=2, arch="Unet", encoder_name="tu-mobilenetv3_small_050")
    network.palette = [[0, 1, 2], [3, 4, 5]]
    network.spec = {"source": "mmseg", "num_classes": 2, "model": {"type": "os.system"}}
    save_segmentor(tmp_path / "a.pt", network)
    assert read_tensors(tmp_path / "a.pt")["palette"] == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(InputError, match="trust=True"):
        load_segmentor(tmp_path / "a.pt")


@pytest.mark.skipif(importlib.util.find_spec("mmseg") is not None, reason="MMSegmentation is installed here")
def test_without_its_packages_the_source_says_what_to_install():
    with pytest.raises(InputError, match="MMSegmentation cannot be used here.*pip install.*onedl-mmsegmentation"):
        build_segmentor("mmseg", num_classes=2, config="a.py")
