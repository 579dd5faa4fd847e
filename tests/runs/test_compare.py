"""The comparison: rows of mean and standard deviation over seeds, from what the runs themselves say."""

import csv
import json
import statistics
import xml.etree.ElementTree as ElementTree

import pytest
from samples import make_run, score, training

from dfad_seg.common.errors import InputError
from dfad_seg.runs.compare import compare, update_results, write_comparison


def seeds(folder, mious, *, rate=0.1, teacher=0.5, method="dfad", start=None, **changes):
    """Runs of one experiment with these test mIoUs."""
    for seed, miou in enumerate(mious):
        scores = [score("teacher", split="test", mIoU=teacher), score(split="test", mIoU=miou), score(mIoU=0.9)]
        scores += [] if start is None else [score(split="test", weights="start", mIoU=start)]
        make_run(
            folder / f"seed_{seed}",
            config={"seed": seed, "method": method, "lr": rate, "device": f"cpu{seed}"},
            provenance={"seed": seed},
            summary={"scores": scores, **changes},
            records=[training(step) for step in (20, 40)],
        )
    return sorted(folder.iterdir())


@pytest.fixture
def runs(tmp_path):
    return seeds(tmp_path / "slow", [0.30, 0.34, 0.35], start=0.1) + seeds(tmp_path / "fast|er", [0.4], rate=0.2)


def test_seeds_are_one_row(runs):
    slow, fast = compare(runs, split="test")
    assert (slow.setting, slow.seeds, slow.changed, fast.changed) == ("slow", [0, 1, 2], "lr=0.1", "lr=0.2")
    assert slow.student_miou_mean == pytest.approx(0.33)
    assert slow.student_miou_sd == pytest.approx(statistics.stdev([0.30, 0.34, 0.35])) and fast.student_miou_sd is None
    assert slow.share == pytest.approx(0.66) and slow.start_miou == pytest.approx(0.1)
    assert (slow.macs_share, slow.parameters_share, slow.latency_share) == (0.125, 0.25, 0.25)
    assert slow.wall_clock_s == 120 and slow.teacher_sha256 == "ab" and slow.selected == "last"
    assert compare(runs)[0].student_miou_mean == 0.9  # on the runs' own split


def test_all_forms_say_the_same(runs, tmp_path):
    rows = compare(runs, split="test")
    files = write_comparison(rows, tmp_path / "out")
    assert [file.name for file in files] == [f"comparison.{kind}" for kind in ("md", "json", "csv", "svg")]
    assert (
        r"| fast\|er | dfad | 0.400 | 80.0 % | 0 | last | 12.5 % | 25.0 % | 25.0 % | 2.0 | lr=0.2 |"
        in files[0].read_text()
    )
    assert [row["student_miou_mean"] for row in json.loads(files[1].read_text())] == [r.student_miou_mean for r in rows]
    assert [float(row["student_miou_mean"]) for row in csv.DictReader(files[2].open())] == [
        row.student_miou_mean for row in rows
    ]
    drawn = ElementTree.parse(files[3])
    texts = " ".join(element.text or "" for element in drawn.iter() if element.tag.endswith("text"))
    assert "dfad, untrained" in texts and "latency, % of the teacher's" in texts


def test_what_is_missing_is_said(runs, tmp_path):
    more = make_run(tmp_path / "slow" / "seed_3", config={"seed": 3, "lr": 0.1}, finished=False)
    assert compare([*runs, more], split="test")[0].unfinished == 1
    for wrong, split, said in (
        ([more], "test", "none of these runs has finished"),
        (runs, "train", "no score on the split train. Score it: dfad-seg eval"),
        ([tmp_path], None, "not a run directory"),
    ):
        with pytest.raises(InputError, match=said):
            compare(wrong, split=split)
    with pytest.raises(InputError, match="2 experiments"):
        compare(runs, setting="x")
    (other,) = seeds(tmp_path / "other", [0.3], rate=0.1)
    (other / "provenance.json").write_text((other / "provenance.json").read_text().replace('"ab"', '"ba"'))
    with pytest.raises(InputError, match="different teachers"):
        compare([*runs, other])


def test_the_teachers_score_may_be_in_its_own_run(tmp_path):
    own = score("teacher", split="test", mIoU=0.8)
    teacher = make_run(tmp_path / "t", config={"method": "supervised"}, summary={"role": "teacher", "scores": [own]})
    student = make_run(tmp_path / "s", summary={"scores": [score(split="test", mIoU=0.4)]})
    (row,) = compare([student], teacher=teacher, split="test")
    assert row.share == pytest.approx(0.5)
    assert compare([student], split="test")[0].share is None


def test_results_keep_rows_whose_runs_are_gone(runs, tmp_path):
    file = tmp_path / "results.json"
    gone = {"setting": "gone", "method": "dfad", "student_miou_mean": 0.1}
    file.write_text(json.dumps([gone, {"setting": "slow", "method": "dfad", "student_miou_mean": 0.2}]))
    for _ in range(2):
        update_results(file, compare(runs, split="test"))
        rows = json.loads(file.read_text())
        assert [row["setting"] for row in rows] == ["gone", "slow", "fast|er"] and rows[0] == gone
    named = "setting method teacher_miou student_miou_mean student_miou_sd seeds selected macs_share parameters_share"
    assert {*named.split(), "wall_clock_s", "device", "teacher_sha256", "command"} <= rows[1].keys()
    file.write_text("{}")
    with pytest.raises(InputError, match="no list of results"):
        update_results(file, compare(runs, split="test"))
