"""The machine-readable results say what the run directories hold."""

import json

import pytest
import yaml
from test_summary import make_run

from dfad_seg.common.errors import InputError
from dfad_seg.runs.results import results_rows, write_results


def listing(tmp_path, *entries):
    path = tmp_path / "results.yaml"
    path.write_text(yaml.safe_dump(list(entries)))
    return path


ENTRY = {"setting": "tiny", "runs": "s_*", "teacher": "t"}


@pytest.fixture
def runs(tmp_path):
    make_run(tmp_path / "t", method="supervised", test=0.5)
    make_run(tmp_path / "s_0", test=0.4, seed=0, ema_decay=0.9)
    make_run(tmp_path / "s_1", test=0.2, seed=1, ema_decay=0.9)
    make_run(tmp_path / "other", test=0.1, seed=0)
    return tmp_path


def test_rows(runs):
    path = listing(runs, ENTRY, ENTRY | {"runs": ["other"], "method": "plain"})
    write_results(path, runs / "results.json", root=runs)
    first, second = json.loads((runs / "results.json").read_text())
    assert first["student_miou_mean"] == pytest.approx(0.3) and first["teacher_miou"] == 0.5
    assert first["student_miou_sd"] == pytest.approx(0.1 * 2**0.5)  # of two values: their distance over √2
    assert first["split"] == "test"
    assert first["seeds"] == [0, 1] and first["selected"] == "ema" and first["method"] == "dfad"
    assert first["wall_clock_s"] == 360 and first["device"] == "a CPU"
    assert second["selected"] == "last" and second["student_miou_sd"] is None and second["method"] == "plain"
    assert set(first) == {
        *("setting", "method", "split", "teacher_miou", "student_miou_mean", "student_miou_sd", "seeds", "selected"),
        *("wall_clock_s", "device", "command"),
    }


def test_rows_of_runs_that_are_gone_stay(runs):
    path = listing(runs, ENTRY | {"method": "kept"}, ENTRY | {"runs": "other", "method": "plain"})
    out = runs / "results.json"
    write_results(path, out, root=runs)
    before = json.loads(out.read_text())
    for seed in (0, 1):
        (runs / f"s_{seed}").rename(runs / f"gone_{seed}")
    make_run(runs / "other2", test=0.3)
    write_results(
        listing(runs, ENTRY | {"method": "kept"}, ENTRY | {"runs": "other2", "method": "plain"}), out, root=runs
    )
    first, second = json.loads(out.read_text())
    assert first == before[0] and second["student_miou_mean"] == 0.3
    write_results(listing(runs, ENTRY | {"method": "kept", "command": "make again"}), out, root=runs)
    assert json.loads(out.read_text()) == [before[0] | {"command": "make again"}]
    with pytest.raises(InputError, match="no run matches"):
        write_results(listing(runs, ENTRY | {"method": "another"}), out, root=runs)
    out.write_text("{}")
    with pytest.raises(InputError, match="holds no list of results"):
        write_results(path, out, root=runs)


@pytest.mark.parametrize(
    "entry, message",
    [
        ({"runs": "absent_*"}, "no run matches absent_"),
        ({"runs": ["s_0", "other"]}, "differ in selected: ema, last"),
        ({"seed": 3}, "unknown key seed"),
        ({"teacher": "unscored"}, "unscored has no test score"),
    ],
)
def test_wrong_entries(runs, entry, message):
    make_run(runs / "unscored", method="supervised")
    with pytest.raises(InputError, match=message):
        results_rows(listing(runs, ENTRY | entry), root=runs)


def test_wrong_lists(tmp_path):
    with pytest.raises(InputError, match="lacks teacher"):
        results_rows(listing(tmp_path, {"setting": "x", "runs": "y"}))
    (tmp_path / "results.yaml").write_text("a: 1\n")
    with pytest.raises(InputError, match="must hold a list"):
        results_rows(tmp_path / "results.yaml")
    with pytest.raises(InputError, match="cannot read"):
        results_rows(tmp_path / "absent.yaml")
