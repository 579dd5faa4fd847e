"""The reader of a run: what it gives has its declared form, whatever stands in the files."""

import json
import os

import pytest
from damage import places, put
from samples import CLASSES, PROVENANCE, SUMMARY, evaluation, make_run

from dfad_seg.common.errors import InputError
from dfad_seg.common.values import validated
from dfad_seg.runs import Run, note_score, update_summary, write_report
from dfad_seg.runs.records import Score
from dfad_seg.runs.tables import class_table, headline, network_table

ODD = (None, True, -1, 10**400, float("nan"), "x", "\x1b[31m", [], [None], {}, {"x": {}}, [[1]], "9" * 5000)


def everything(run):
    """Read all that a run can be asked for."""
    run = Run(run)
    student, teacher = run.score("student"), run.score("teacher")
    if student:
        _ = student.largest_prediction
    _ = headline(run.summary, student, teacher), class_table(student, teacher, {}), network_table(run.summary)
    return run.provenance, run.summary, run.records, run.events, run.seconds, run.generated


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("summary.json", SUMMARY),
        ("provenance.json", PROVENANCE),
        ("metrics.jsonl", evaluation(40, (0.6, 0.3, 0.0))),
        ("metrics.jsonl", {"step": 3, "elapsed_s": 1.0, "event": "collapse", "cause": "c", "found_at": 3}),
    ],
)
def test_anything_in_any_field_is_an_input_error_and_the_report_says_so(tmp_path, name, content):
    run = make_run(tmp_path / "run")
    refused = 0
    for number, path in enumerate(places(content)):
        for new in (ODD[number % len(ODD)], ODD[(5 * number + 3) % len(ODD)]):
            (run / name).write_text(json.dumps(put(content, path, new)) + "\n")
            try:
                everything(run)
            except InputError:
                refused += 1
    assert refused > len(content)
    (run / name).write_text('{"step": 1, "seed": []}\n')
    page = write_report(run).read_text()
    assert "Not readable" in page


@pytest.mark.parametrize("text", ["", "[]", "method: 3", "a: [", "method: x\nmethod: y", "a: &a [*a]\nmethod: d", "\0"])
def test_a_folder_without_a_config_is_no_run(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError):
        Run(tmp_path)
    with pytest.raises(InputError, match="not a run directory"):
        Run(tmp_path / "absent")


def test_pictures_are_regular_files_within_the_run(tmp_path):
    run = make_run(tmp_path / "run")
    outside = tmp_path / "outside.png"
    (run / "pictures" / "generated_00000020.png").rename(outside)
    os.symlink(outside, run / "pictures" / "generated_00000020.png")
    os.mkfifo(run / "pictures" / "generated_00000030.png")
    assert [step for step, _ in Run(run).generated] == [40]
    for name in ("../outside.png", str(outside), "pictures/generated_00000030.png", "pictures", "x" * 5000, "a\0.png"):
        assert Run(run).picture(name) is None


def test_the_last_evaluation_counts_until_there_is_a_score(tmp_path):
    run = make_run(tmp_path / "run", summary={"scores": []}, finished=False)
    score = Run(run).score("student")
    assert score.mIoU == pytest.approx(0.3) and dict(zip(score.classes, score.IoU, strict=True))[CLASSES[0]] == 0.6
    assert Run(run).score("teacher") is None and Run(run).score("student", split="test") is None
    for miou in (0.2, 0.4):
        note_score(run, validated(Score, SUMMARY["scores"][1] | {"mIoU": miou}, "score"))
    assert len(Run(run).summary.scores) == 1 and Run(run).score("student").mIoU == 0.4
    update_summary(run, selected="ema")
    assert Run(run).score("student", weights="last").mIoU == 0.4 and Run(run).score("student").mIoU == pytest.approx(
        0.3
    )
