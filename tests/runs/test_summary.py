"""The results table says what the run directories hold, and nothing else."""

import json

import pytest

from dfad_seg.common.errors import InputError
from dfad_seg.runs.summary import put_into, results_table, summarise


def make_run(folder, method="dfad", steps=4, test=None, iterations=4, scored="test", **config):
    folder.mkdir()
    values = {"method": method, "seed": 3, "iterations": iterations, "evaluation": "{split: val}"} | config
    (folder / "config.yaml").write_text("".join(f"{k}: {v}\n" for k, v in values.items()))
    (folder / "provenance.json").write_text(
        json.dumps({"trained_parameters": 1234567, "device": "a CPU", "git_commit": "0123456789abcdef"})
    )
    records = [
        {"step": s, "elapsed_s": 90.0 * s, "val/mIoU": 0.1 * s if s % 2 == 0 else None} for s in range(1, steps + 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    if test is not None:
        metrics = {"split": scored, "mIoU": test, "classes": ["sky", "car"], "IoU": [test, None]}
        (folder / "test_metrics.json").write_text(json.dumps(metrics))
    return folder


def test_table(tmp_path):
    teacher = make_run(tmp_path / "t", method="supervised", test=0.5)
    student = make_run(tmp_path / "s", test=0.4, student_steps=2, replay_steps=3)
    table = results_table([student], teacher=teacher)
    assert "| s | dfad | 3 | 1,234,567 | 20 | 6.0 | 0.400 (val) | 0.400 | 80.0% |" in table
    assert "| t | supervised | 3 | 1,234,567 | 4 | 6.0 | 0.400 (val) | 0.500 | 100.0% |" in table
    assert "- s (val): 2: 0.200, 4: 0.400" in table
    assert "| sky | 0.500 | 0.400 |" in table and "| car | – | – |" in table
    assert "Measured on a CPU. Code: 0123456789ab." in table


def test_runs_of_the_same_folder_name_have_columns_of_their_own(tmp_path):
    teacher = make_run(tmp_path / "t", method="supervised", test=0.5)
    runs = []
    for name, score in (("a", 0.2), ("b", 0.3)):
        (tmp_path / name).mkdir()
        runs.append(make_run(tmp_path / name / "seed_0", test=score))
    table = results_table(runs, teacher=teacher)
    assert "| class | t | seed_0 | seed_0 |" in table and "| sky | 0.500 | 0.200 | 0.300 |" in table


def test_the_split_that_was_scored_is_named(tmp_path):
    teacher = make_run(tmp_path / "t", method="supervised", test=0.5, scored="val")
    table = results_table([make_run(tmp_path / "s", test=0.4, scored="val")], teacher=teacher)
    assert "| val mIoU | share of the teacher's val mIoU |" in table and "Val IoU per class:" in table
    assert "test" not in table.lower()
    with pytest.raises(InputError, match="different splits: test, val"):
        results_table([make_run(tmp_path / "other", test=0.4)], teacher=teacher)


def test_steps_are_those_that_the_run_noted(tmp_path):
    run = make_run(tmp_path / "s", student_steps=2, replay_steps=3, final_replay_steps=9)
    noted = json.loads((run / "provenance.json").read_text()) | {"trained_steps": 31}
    (run / "provenance.json").write_text(json.dumps(noted))
    assert summarise(run).student_steps == 31


def test_unfinished_and_foreign_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match="has not finished: 3 of 4"):
        summarise(make_run(tmp_path / "half", steps=3))
    with pytest.raises(InputError, match="not a run directory"):
        summarise(tmp_path)
    run = make_run(tmp_path / "r")
    (run / "provenance.json").write_text("{")
    with pytest.raises(InputError, match="not a run directory"):
        summarise(run)


def test_put_into_replaces_only_its_own_place(tmp_path):
    file = tmp_path / "results.md"
    file.write_text("top\n<!-- begin a -->\nold\n<!-- end a -->\nbottom\n")
    put_into(file, "a", "new\n")
    put_into(file, "a", "newer\n")
    assert file.read_text() == "top\n<!-- begin a -->\nnewer\n<!-- end a -->\nbottom\n"
    with pytest.raises(InputError, match="begin b"):
        put_into(file, "b", "x\n")
    with pytest.raises(InputError, match="cannot read"):
        put_into(tmp_path / "absent.md", "a", "x\n")
