"""The report of a run that the training tool made, and what it may cost a run when something about it fails."""

from types import SimpleNamespace

import cv2
import pytest
from shared import call_tool, write_yaml

from dfad_seg.config import load_config
from dfad_seg.recipes import evaluate, finishing, reporting
from dfad_seg.recipes.finishing import best_and_worst, health_of
from dfad_seg.runs import Run
from dfad_seg.segmentors import count_parameters, load_segmentor


@pytest.fixture(scope="module")
def reported(world):
    """The directory of a run that keeps an average, with layouts."""
    changes = {"generator": {"type": "layout", "width": 4}, "ema_decay": 0.5, "report": "full"}
    config = write_yaml(world.folder / "reported.yaml", world.configs["dfad"] | changes)
    path = world.folder / "reported_run"
    assert call_tool("train", config, "--work-dir", path) == 0
    return path


def test_costs_and_scores_are_the_networks_own(reported, world):
    run = Run(reported)
    summary = run.summary
    teacher, student = load_segmentor(world.teacher), load_segmentor(run.path / "student.pt")
    assert summary.costs["teacher"].parameters == count_parameters(teacher)
    assert summary.costs["student"].parameters == count_parameters(student)
    assert summary.size == (32, 48) and all(0 < cost.latency_s < 10 for cost in summary.costs.values())
    config = load_config(world.paths["dfad"])
    for network, score in ((teacher, run.score("teacher")), (student, run.score("student"))):
        expected = evaluate(config, network)
        assert score.mIoU == pytest.approx(expected.mIoU, abs=1e-6) and score.support == expected.metrics.support
    assert summary.selected == "ema" and run.score("student").weights == "ema"
    last = run.score("student", weights="last")
    assert last is not None and last.digest != run.score("student").digest
    health = " ".join(health_of(run) or [])
    assert ("averaged weights, which are kept, score worse" in health) is (run.score("student").mIoU < last.mIoU)


def test_pictures_of_examples_and_of_the_generator(reported):
    examples, page = Run(reported).summary.examples, (reported / "report.html").read_text()
    assert [row.kind for row in examples] == ["worst", "worst", "best"]  # of three images
    assert len({row.name for row in examples}) == 3 and examples[0].miou <= examples[1].miou <= examples[2].miou
    for row in examples:
        assert (reported / row.file).read_bytes().startswith(b"\x89PNG") and 0 <= row.teacher_miou <= 1
    seen = Run(reported).summary.seen
    assert len(seen) == 11 and all(share is None or 0 <= share <= 1 for share in seen.values())
    assert cv2.imread(str(reported / "pictures" / "generator.png")).shape[0] > 3 * 96
    for part in ("Seen as asked", "Best and worst images", "Finished: 3 iterations", "student, last weights"):
        assert part in page


def test_no_run_fails_for_its_report(world, tmp_path, monkeypatch, capsys):
    def broken(*_, **__):
        raise RuntimeError("report\nbroken")

    for name in ("write_report", "measure_latency", "scored", "_cost"):
        monkeypatch.setattr(finishing, name, broken)
    values = world.configs["dfad"] | {"iterations": 1, "report": "full"}
    run = tmp_path / "run"
    assert call_tool("train", write_yaml(tmp_path / "c.yaml", values), "--work-dir", run) == 0
    assert (run / "student.pt").is_file() and not (run / "report.html").exists()
    errors = capsys.readouterr().err
    assert "warning: the report could not be written: report broken\n" in errors
    assert "warning: the latency is not in the report: report broken\n" in errors


def test_best_and_worst_never_name_an_image_twice():
    scores = {f"image_{i}": i / 10 for i in range(8)}
    assert best_and_worst(scores, 2) == [
        ("worst", "image_0"), ("worst", "image_1"), ("best", "image_7"), ("best", "image_6"),
    ]  # fmt: skip
    for count in range(8):
        names = [name for _, name in best_and_worst(dict(list(scores.items())[:count]), 3)]
        assert len(names) == len(set(names)) == min(count, 6)


def test_what_looks_unhealthy_is_said_once_while_it_trains(monkeypatch, tmp_path, capsys):
    figures = iter(([], ["It is dead: 80.1 %."], ["It is dead: 79.5 %.", "It forgets."]))
    monkeypatch.setattr(reporting, "Run", lambda path: path)
    monkeypatch.setattr(reporting, "health_of", lambda run: next(figures))
    config = SimpleNamespace(evaluation=None, log_every=1, save_every=1, report="short")
    hooks = reporting.build_hooks(
        config, run=SimpleNamespace(path=tmp_path, save_checkpoint=lambda state: None), identity="", evaluate=None,
        progress=None, advance=lambda step: None, info=None,
        stop_requested=reporting.StopSignals(),
    )  # fmt: skip
    for step in (1, 2, 3):
        hooks.save(step, {})
    assert capsys.readouterr().err == "warning, iteration 2: It is dead: 80.1 %.\nwarning, iteration 3: It forgets.\n"
