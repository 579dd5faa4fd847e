"""Ablations: the settings, that runs are kept and gone on with, and that the table is that of the run directories."""

import json
import shutil
import statistics

import pytest
from conftest_pipeline import call_tool, write

from dfad_seg.ablation import _steady, build_settings, parse_vary
from dfad_seg.common.errors import InputError
from dfad_seg.config import parse_config
from dfad_seg.runs import read_metrics
from dfad_seg.runs.ablation import ablation_rows, ablation_table


def names(*vary, mode="one-at-a-time"):
    return [setting.name for setting in build_settings(vary, mode)]


def test_settings():
    assert names("seed=1,2", "a.b=x") == ["base", "seed=1", "seed=2", "a.b=x"]
    assert names("a=1,2", "b=3,4", mode="grid") == ["a=1, b=3", "a=1, b=4", "a=2, b=3", "a=2, b=4"]
    values = parse_vary("student_loss={kl: 1, mae: 0.2},{mae: 1}@iterations=300@schedule={type: step, every: 9}")
    assert [s.overrides for s in values] == [
        ("student_loss={kl: 1, mae: 0.2}",),
        ("student_loss={mae: 1}", "iterations=300", "schedule={type: step, every: 9}"),
    ]
    assert values[0].folder == "student_loss=_kl_1_mae_0.2"
    for wrong in ("seed", "=1", "seed=", "seed=1,,2", "seed=1@2"):
        with pytest.raises(InputError, match="--vary"):
            parse_vary(wrong)
    with pytest.raises(InputError, match="same name, a=1"):
        build_settings(["a=1,1"], "grid")


def test_ablation(world, tmp_path, capsys):
    values = world.configs["random_noise"] | {"iterations": 1, "student_steps": 1}
    path = write(tmp_path / "noise.yaml", values)
    page = tmp_path / "page.md"
    page.write_text("<!-- begin ours -->\n<!-- end ours -->\n")
    command = [path, "--vary", "student_loss={kl: 1}", "--vary", "seed=0", "--work-dir", tmp_path / "a"]
    command += ["--cfg-options", "recalibrate_batches=1"]
    assert call_tool("ablate", *command, "--seeds", "0") == 0
    first = (tmp_path / "a" / "base" / "seed_0" / "student.pt").stat().st_mtime_ns
    more = ["--seeds", "0,1", "--test", "--into", page, "--name", "ours"]
    assert call_tool("ablate", *command, *more[:-1], "theirs") == 2
    assert not (tmp_path / "a" / "base" / "seed_1").exists(), "trained although the table has no place"
    assert call_tool("ablate", *command, *more) == 0
    assert (tmp_path / "a" / "base" / "seed_0" / "student.pt").stat().st_mtime_ns == first, "a finished run ran again"
    rows = json.loads((tmp_path / "a" / "ablation.json").read_text())["rows"]
    assert [row["setting"] for row in rows] == ["base", "student_loss={kl: 1}"]  # seed=0 is the base itself
    scores = [read_metrics(tmp_path / "a" / "base" / f"seed_{s}")[-1]["val/mIoU"] for s in (0, 1)]
    assert rows[0]["miou"] == scores and rows[0]["seeds"] == [0, 1] and len(rows[0]["test_miou"]) == 2
    expected = f"| base | {statistics.mean(scores):.3f} ± {statistics.stdev(scores):.3f} | – |"
    assert "(images/ours.png)" in page.read_text() and (tmp_path / "images" / "ours.png").exists()
    assert expected in page.read_text() and expected in (tmp_path / "a" / "ablation.md").read_text()
    assert (tmp_path / "a" / "ablation.png").read_bytes()[:4] == b"\x89PNG"
    (tmp_path / "a" / "base" / "seed_1" / "student.pt").unlink()
    capsys.readouterr()
    assert call_tool("ablate", *command, "--seeds", "0,1", "--table-only") == 0
    assert "0 (1 unfinished)" in capsys.readouterr().out
    assert not (tmp_path / "a" / "base" / "seed_1" / "student.pt").exists()


def test_equal_time(world, tmp_path, monkeypatch):
    """Iterations follow from the times measured, once; a repeated command keeps them."""
    monkeypatch.setattr("dfad_seg.ablation.TIMED", (1, 3))
    path = write(tmp_path / "noise.yaml", world.configs["random_noise"] | {"student_steps": 1})
    command = [path, "--vary", "student_steps=4", "--work-dir", tmp_path / "a", "--seeds", "0", "--minutes", "0.01"]
    assert call_tool("ablate", *command, "--table-only") == 2  # nothing has been timed
    assert call_tool("ablate", *command) == 0
    times = json.loads((tmp_path / "a" / "timing.json").read_text())
    assert set(times) == {"base", "student_steps=4"} and 0 < times["base"] < times["student_steps=4"]
    rows = json.loads((tmp_path / "a" / "ablation.json").read_text())["rows"]
    assert [row["iterations"] for row in rows] == [max(1, round(0.6 / times[row["setting"]])) for row in rows]
    assert not (tmp_path / "a" / "timing").exists()
    (tmp_path / "a" / "timing.json").write_text(json.dumps({name: 0.3 for name in times}))
    for run in (tmp_path / "a").glob("*/seed_0"):
        shutil.rmtree(run)
    assert call_tool("ablate", *command) == 0
    assert [r["iterations"] for r in json.loads((tmp_path / "a" / "ablation.json").read_text())["rows"]] == [2, 2]


def test_the_timed_iterations_cost_what_all_do_on_average(world):
    growing = {"replay_size": 64, "replay_steps": 2, "final_replay_steps": 12, "student_steps": 3}
    growing |= {"schedule": {"type": "poly", "power": 1.0, "warmup": 5}, "iterations": 100}
    overrides = _steady(parse_config(world.configs["random_noise"] | growing))
    assert overrides[1:] == ["student_steps=3", "final_student_steps=null", "replay_steps=7", "final_replay_steps=null"]
    assert _steady(parse_config(world.configs["distill_with_data"])) == []


def test_a_run_that_diverged_counts_as_unfinished(tmp_path):
    (tmp_path / "config.yaml").write_text("method: dfad\n")
    (tmp_path / "last_good_student.pt").write_bytes(b"")
    (row,) = ablation_rows({"base": [tmp_path]})
    assert row["unfinished"] == 1 and row["seeds"] == []


def test_wrong_settings_are_found_before_anything_runs(world, tmp_path, capsys):
    path = world.paths["random_noise"]
    assert call_tool("ablate", path, "--vary", "iteratons=1", "--work-dir", tmp_path / "a") == 2
    assert "Did you mean 'iterations'" in capsys.readouterr().err
    blind = {k: v for k, v in world.configs["random_noise"].items() if k != "evaluation"}
    path = write(tmp_path / "blind.yaml", blind)
    assert call_tool("ablate", path, "--vary", "iterations=1", "--work-dir", tmp_path / "a") == 2
    assert "no evaluation" in capsys.readouterr().err
    path = world.paths["random_noise"]
    assert call_tool("ablate", path, "--vary", "iterations=1", "--seeds", "0,1,0", "--work-dir", tmp_path / "a") == 2
    assert "seeds 0, 1, 0: each counts once" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_table_by_hand():
    common = {"unfinished": 0, "split": "val", "selected": "ema", "iterations": 9, "minutes": 1.25, "where": ["a CPU"]}
    rows = [
        {"setting": "base", "seeds": [0, 1], "miou": [0.4, 0.6], "test_miou": [], **common},
        {"setting": "x=1", "seeds": [0], "miou": [0.8], "test_miou": [0.7], **common, "unfinished": 1},
    ]
    table = ablation_table(rows)
    assert "| base | 0.500 ± 0.141 | – | – | 0, 1 | ema | 9 | 1.2 |" in table
    assert "| x=1 | 0.800 | +0.300 | 0.700 | 0 (1 unfinished) | ema | 9 | 1.2 |" in table
    assert table.endswith("Measured on a CPU.\n")
