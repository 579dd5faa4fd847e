"""The benchmark runs, compares what it times, and writes its table."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "evaluation_throughput.py"


@pytest.mark.slow
def test_counting_and_whole_evaluation(tiny_scenes, tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("evaluation_throughput", BENCHMARK)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    monkeypatch.setattr(benchmark, "STUDENT", {**benchmark.STUDENT, "encoder_name": "tu-mobilenetv3_small_050"})
    options = ["--images", "2", "--repeats", "1", "--workers", "0", "--json", str(tmp_path / "t.json")]
    monkeypatch.setattr(sys, "argv", ["benchmark", "--data", str(tiny_scenes), *options])
    state = torch.get_rng_state()
    benchmark.main()
    torch.set_rng_state(state)
    rows = json.loads((tmp_path / "t.json").read_text())["rows"]
    assert {row["what"] for row in rows} == {
        "counting", "label map of logits", "denormal weights", "evaluation, fp32", "evaluation, bf16"
    }  # fmt: skip
    assert all(row.get("seconds", 1) > 0 for row in rows)
    assert "| counting | numpy bincount, int64 |" in capsys.readouterr().out
