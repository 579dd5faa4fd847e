"""The report: what a person looks at is in it, escaped, from a run directory as it stands."""

import re

import pytest
from samples import CLASSES, SUMMARY, evaluation, make_run, score, training

from dfad_seg.common.errors import InputError
from dfad_seg.runs import Run, write_report
from dfad_seg.runs.charts import curves_svg
from dfad_seg.runs.report import report_content


def content(run, judge=None):
    return report_content(Run(run), judge)


def test_head_and_tables(tmp_path):
    found = content(make_run(tmp_path / "run"))
    assert found["finished"] and found["status"] == "Finished: 40 iterations in 0:02:00."
    assert dict(found["tiles"]) == {
        "mIoU of the student (val)": "30.0 %",
        "mIoU of the teacher (val)": "70.0 %",
        "of the teacher's mIoU": "42.9 %",
        "recovered above the best constant prediction": "20.0 %",  # which has 60 % / 3
        "fewer parameters": "4.0×",
        "fewer MACs": "8.0×",
        "faster here": "4.0×",
    }
    rows = dict((row[0], row[1:]) for row, _ in found["classes"].rows)
    assert rows["road"] == ["80.00", "60.00", "75.0 %"] and rows[CLASSES[2]] == ["–", "0.00", "–"]
    assert rows["mIoU"][2] == "42.9 %" and rows["mIoU of the best constant prediction"][2] == "–"  # no share
    networks = [row for row, _ in found["networks"].rows]
    assert networks[1] == ["student", "FPN tiny", "2,000", "0.500", "50.0 (+50%)"]
    assert networks[2][2:] == ["4.0×", "8.0×", "4.0×"]
    costs = {role: cost | {"scatter": 4.0} for role, cost in SUMMARY["costs"].items()}
    found = content(make_run(tmp_path / "noisy", summary={"costs": costs, "split": "all"}))
    assert "faster here" not in dict(found["tiles"])  # four times is less than passes differ by
    assert found["next"][0][1].endswith("--split all")


TRAINING = [{"purpose": "training", "split": "train", "dataset": "voc"}]
SUPERVISED = {"method": "supervised"}


def test_other_weights_stand_beside_those_that_are_kept(tmp_path):
    scores = [score("teacher", iou=(0.8, 0.6, 0.1)), score(weights="ema", iou=(0.3, 0.2, 0.1)), score()]
    scores.append(score(weights="start", iou=(0.2, 0.1, 0.0)))
    found = content(make_run(tmp_path / "run", summary={"selected": "ema", "scores": scores}))
    heads = ["student, averaged", "student, as cut", "student, last weights"]
    assert found["classes"].heads == ["class", "teacher", *heads, "share"]
    miou = dict((row[0], row[1:]) for row, _ in found["classes"].rows)["mIoU"]
    assert miou == ["50.00", "20.00", "10.00", "30.00", "40.0 %"]
    assert dict(found["tiles"])["mIoU of the student (val)"] == "20.0 %"


@pytest.mark.parametrize(
    ("config", "provenance", "data_free", "said"),
    [
        ({}, {}, True, "evaluation only: folders, val split"),
        ({}, {"real_images": []}, True, "None was read at all"),
        ({}, {"trained_from": {"encoder_checkpoint": "w.pt"}}, True, "elsewhere: w.pt"),
        ({}, {"trained_from": {"checkpoint": "w.pt", "checkpoint_sha256": "ab"}}, True, "of the teacher: w.pt"),
        ({"method": "distill_with_data"}, {}, False, "contradict"),
        ({}, {"method": "supervised"}, False, "contradict"),
        ({}, {"real_images_used_for_training": True}, False, "contradict"),
        ({}, {"real_images": TRAINING}, False, "contradict"),
        (SUPERVISED, SUPERVISED | {"real_images": TRAINING, "real_images_used_for_training": True}, False,
         "read for training: voc, train split"),
    ],
)  # fmt: skip
def test_data_free_is_claimed_where_all_records_agree(tmp_path, config, provenance, data_free, said):
    found = content(make_run(tmp_path / "run", config=config, provenance=provenance))
    assert found["data_free"] is data_free and said in found["claim"]


def test_health_is_what_the_judge_says_and_what_training_noted(tmp_path):
    noted = {"step": 10, "elapsed_s": 1.0, "event": "not_finite", "cause": "a loss is not finite", "found_at": 10}
    run = make_run(tmp_path / "run", records=[training(1), noted])
    told = "Noted in iteration 10: not finite: a loss is not finite."
    assert content(run, lambda run: ["Bad."])["warnings"] == ["Bad.", told]
    healthy = make_run(tmp_path / "healthy")
    assert content(healthy, lambda run: [])["healthy"] == "Nothing looks unhealthy."
    assert content(healthy, lambda run: None)["healthy"] == content(healthy)["healthy"] == ""


def test_the_page_is_escaped_whole_and_alone(tmp_path):
    records = [training(step) for step in (2, 4, 40)] + [evaluation(40, (0.6, 0.3, 0.0))]
    page = write_report(make_run(tmp_path / "run", records=records)).read_text()
    assert "<script>" not in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<b>x" not in page and "<i>img" not in page and "passwd" not in page
    assert page.count('src="data:image/webp') == 3 and page.count("<svg") == 6
    assert "http:" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", page) and "https:" not in page
    assert "dfad-seg eval" in page and "--split test" in page and "file_sha256" in page
    assert "c0" in page and "#0102" not in page  # the page's colours for the stand-ins
    with pytest.raises(InputError, match="not a run directory"):
        write_report(tmp_path)


def test_an_unfinished_run_and_one_without_evaluation(tmp_path):
    records = [training(step) for step in (1, 2)]
    run = make_run(tmp_path / "run", records=records, summary={"scores": [], "split": None}, finished=False)
    found = content(run)
    assert found["status"] == "Not finished: 2 of 40 iterations in 0:00:06." and found["classes"] is None
    assert "--resume" in found["next"][0][1]
    for name in ("summary.json", "provenance.json", "metrics.jsonl"):
        (run / name).unlink()
    assert "nothing can be said" in content(run)["claim"] and "Not finished" in write_report(run).read_text()


def test_pictures_that_are_none_of_ours_are_left_out(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "pictures" / "generated_00000020.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    (run / "pictures" / "generated_00000040.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert content(run)["generated"] == [] and len(content(run)["examples"]) == 1


def test_charts_take_any_curve():
    steps = list(range(1, 5001))
    jumping = curves_svg('a "b" <c>', {"_$x$ <y>": (steps, [float(step % 7) for step in steps])}, smooth=True)
    assert 'aria-label="a &quot;b&quot; &lt;c&gt;: _$x$ &lt;y&gt;"' in jumping and len(jumping) < 60_000
    flat = curves_svg("flat", {"a": ([1], [0.0]), "$\\frac$": ([1, 2], [1e-9, 1e9])})
    assert flat.startswith("<svg") and "frac" in flat
