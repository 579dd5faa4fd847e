"""precision: auto."""

import json

import pytest
import torch
import yaml
from conftest_pipeline import call_tool, write

from dfad_seg.config import parse_config
from dfad_seg.recipes import device
from dfad_seg.recipes.device import resolve_precision

SMP = {"source": "smp", "arch": "Unet", "encoder_name": "resnet18"}
PLAIN = {"method": "random_noise", "num_classes": 3, "teacher": SMP, "student": SMP}


def resolved(monkeypatch, gain, *, cuda=False, decided=None, **values):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    monkeypatch.setattr(device, "bf16_gain", lambda: gain)
    return resolve_precision(parse_config(PLAIN | {"precision": "auto"} | values), cuda=cuda, decided=decided)


def test_auto_takes_bf16_only_where_it_is_faster_and_says_so(monkeypatch, capsys):
    assert resolved(monkeypatch, 0.5) == "32-true"
    assert "precision auto: 32-true, bf16 autocast is 0.50x as fast as fp32 on this CPU" in capsys.readouterr().out
    assert resolved(monkeypatch, 3.0) == "bf16-mixed"
    assert resolved(monkeypatch, 3.0, decided="32-true") == "32-true"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    assert resolved(monkeypatch, 0.5, cuda=True) == "bf16-mixed"


def test_a_run_keeps_the_precision_that_it_began_with(world, tmp_path, monkeypatch):
    values = {key: value for key, value in world.configs["random_noise"].items() if key != "evaluation"}
    config = write(tmp_path / "auto.yaml", values | {"precision": "auto", "iterations": 1})
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    monkeypatch.setattr(device, "bf16_gain", lambda: 9.0)
    assert call_tool("train", config, "--work-dir", tmp_path / "run") == 0
    assert json.loads((tmp_path / "run" / "provenance.json").read_text())["precision"] == "bf16-mixed"
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["precision"] == "auto"
    monkeypatch.setattr(device, "bf16_gain", lambda: pytest.fail("measured again"))
    assert call_tool("train", config, "--work-dir", tmp_path / "run", "--resume") == 0
