"""precision: auto, --auto-batch and --profile."""

import json

import pytest
import torch
from shared import call_tool, write_yaml

from dfad_seg import load_config
from dfad_seg.config import parse_config
from dfad_seg.recipes import device, lengths
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


def test_a_run_keeps_the_precision_and_the_batch_that_it_began_with(world, tmp_path, monkeypatch, capsys):
    train = ["train", write_yaml(tmp_path / "auto.yaml", world.configs["dfad"] | {"precision": "auto"}), "--auto-batch"]
    train += ["--work-dir", tmp_path / "run"]
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    monkeypatch.setattr(device, "bf16_gain", lambda: 9.0)
    monkeypatch.setattr(lengths, "peak_memory", lambda config, batch: (10 + batch) * 2**30)
    monkeypatch.setattr(lengths, "free_memory", lambda: 20 * 2**30)
    assert call_tool(*train, "--profile", "1") == 0
    assert f"trace of 1 iterations: {tmp_path / 'run' / 'profile.json'}" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "provenance.json").read_text())["precision"] == "bf16-mixed"
    assert load_config(tmp_path / "run" / "config.yaml").batch_size == 6
    assert "precision: auto\n" in (tmp_path / "run" / "config.yaml").read_text()
    monkeypatch.setattr(device, "bf16_gain", lambda: pytest.fail("measured again"))
    monkeypatch.setattr(lengths, "peak_memory", lambda *_: pytest.fail("measured again"))
    assert call_tool(*train, "--resume") == 0
