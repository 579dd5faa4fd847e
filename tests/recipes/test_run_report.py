"""The report of a run that the training tool made, and what it may cost a run when something about it fails."""

import json

import numpy as np
import pytest
import torch
from conftest_pipeline import call_tool, write

from dfad_seg.config import load_config
from dfad_seg.recipes import evaluate_network, report_data
from dfad_seg.recipes.report_data import best_and_worst, image_miou, latency
from dfad_seg.report import read_content
from dfad_seg.runs import read_metrics
from dfad_seg.segmentors import count_parameters, load_segmentor


@pytest.fixture(scope="module")
def reported(world):
    """(run directory, the reports that were written on the way)"""
    path, states = world.folder / "reported_run", []
    original = report_data.write_report

    def write_report(run):
        file = original(run)
        states.append((run / "report.md").read_text())
        return file

    report_data.write_report = write_report
    try:
        assert call_tool("train", world.paths["dfad"], "--work-dir", path) == 0
    finally:
        report_data.write_report = original
    return path, states


def test_the_report_grows_with_the_run(reported):
    path, states = reported
    assert "Not finished: 0 of 3 iterations" in states[0] and "DeepLabV3Plus mobilenet_v2" in states[0]
    assert any("Not finished: 2 of 3" in state for state in states)
    assert "Finished: 3 iterations" in states[-1]
    assert len(states) < 10


def test_costs_and_scores_are_the_networks_own(reported, world):
    path, _ = reported
    data = json.loads((path / "report.json").read_text())
    teacher, student = load_segmentor(world.teacher), load_segmentor(path / "student.pt")
    assert data["networks"]["teacher"]["parameters"] == count_parameters(teacher)
    assert data["networks"]["student"]["parameters"] == count_parameters(student)
    assert data["size"] == [32, 48]
    assert all(0 < cost["latency_s"] < 10 and cost["latency_runs"] >= 1 for cost in data["networks"].values())
    expected = evaluate_network(load_config(world.paths["dfad"]), teacher)
    assert data["teacher_scores"]["metrics"]["mIoU"] == pytest.approx(expected.mIoU, abs=1e-6)
    rows = {row[0]: row for row in read_content(path).classes.rows}
    last = [record for record in read_metrics(path) if "val/mIoU" in record][-1]
    assert rows["mIoU"][1:3] == [f"{100 * expected.mIoU:.2f}", f"{100 * last['val/mIoU']:.2f}"]
    assert rows["road"][1] == f"{100 * expected.iou[expected.classes.index('road')]:.2f}"


def test_best_and_worst_images_are_there(reported):
    path, _ = reported
    examples = json.loads((path / "report.json").read_text())["examples"]
    assert [row["kind"] for row in examples] == ["worst", "worst", "best"]  # of three images
    assert len({row["name"] for row in examples}) == 3
    assert examples[0]["miou"] <= examples[1]["miou"] <= examples[2]["miou"]
    for row in examples:
        assert (path / row["file"]).read_bytes().startswith(b"\x89PNG")
        assert 0 <= row["teacher_miou"] <= 1
    assert len(read_content(path).examples) == 3


def test_a_run_without_evaluation_reads_no_image(world, tmp_path):
    removed = ("dataset", "evaluation")
    values = {k: v for k, v in world.configs["dfad"].items() if k not in removed} | {"num_classes": 11, "iterations": 1}
    run = tmp_path / "run"
    assert call_tool("train", write(tmp_path / "c.yaml", values), "--work-dir", run) == 0
    content = read_content(run)
    assert content.data_free is True and content.claim.endswith("None was read at all.")
    assert content.classes is None and content.examples == []
    assert json.loads((run / "report.json").read_text())["size"] == [32, 48]


def test_parts_can_be_left_out(world, tmp_path):
    values = world.configs["dfad"] | {"report": {"latency": False, "teacher": False, "examples": 0}, "iterations": 1}
    assert call_tool("train", write(tmp_path / "c.yaml", values), "--work-dir", tmp_path / "run") == 0
    data = json.loads((tmp_path / "run" / "report.json").read_text())
    assert data.keys() == {"size", "device", "networks"}
    assert not (tmp_path / "run" / "pictures" / "examples").exists()


def test_no_run_fails_for_its_report(world, tmp_path, monkeypatch, capsys):
    def broken(*_):
        raise RuntimeError("report\nbroken")

    for name in ("write_report", "latency", "_score", "_cost"):
        monkeypatch.setattr(report_data, name, broken)
    values = world.configs["dfad"] | {"iterations": 1}
    run = tmp_path / "run"
    assert call_tool("train", write(tmp_path / "c.yaml", values), "--work-dir", run) == 0
    assert (run / "student.pt").is_file() and not (run / "report.html").exists()
    errors = capsys.readouterr().err
    assert "warning: the report could not be written: report broken\n" in errors
    assert "warning: the latency is not in the report: report broken\n" in errors


def test_image_miou_by_hand():
    # Class 0: 2 of 4; class 1: 1 of 2; class 2 occurs nowhere; class 3 is predicted only.
    hits, truth, predicted = [2, 1, 0, 0], [3, 2, 0, 0], [3, 1, 0, 1]
    assert image_miou(np.array([hits, truth, predicted])) == pytest.approx((2 / 4 + 1 / 2 + 0) / 3)
    assert image_miou(np.zeros((3, 4), dtype=int)) is None


def test_best_and_worst_never_name_an_image_twice():
    scores = {f"image_{i}": i / 10 for i in range(8)}
    assert best_and_worst(scores, 2) == [
        ("worst", "image_0"), ("worst", "image_1"), ("best", "image_7"), ("best", "image_6"),
    ]  # fmt: skip
    for count in range(8):
        names = [name for _, name in best_and_worst(dict(list(scores.items())[:count]), 3)]
        assert len(names) == len(set(names)) == min(count, 6)


def test_latency_is_that_of_the_network():
    class Sleeper(torch.nn.Module):
        def forward(self, images):
            report_data.time.sleep(0.02)
            return images

    network = Sleeper().train()
    seconds, runs = latency(network, (4, 4), torch.device("cpu"))
    assert 0.02 <= seconds < 0.2 and runs == 20
    assert network.training
