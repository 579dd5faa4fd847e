"""What the record of a run says about its health: each kind of trouble is named, and a sound run is not."""

import re

import pytest

from dfad_seg.distill.judging import judge_average, judge_predictions, judge_records


def records(**curves):
    """Twenty log lines; a curve is a function of the step."""
    defaults = {"student_loss": lambda step: 1 / step, "student_agreement": lambda step: 0.8}
    return [
        {"step": step} | {f"train/{name}": curve(step) for name, curve in (defaults | curves).items()}
        for step in range(1, 21)
    ]


def scored(*values):
    return [{"step": 10 * place, "val/mIoU": value} for place, value in enumerate(values)]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (records(student_loss=lambda step: 1.0 if step < 10 else step), "loss has grown to"),
        (records(student_agreement=lambda step: 0.995), "agree on 99.5 % of the generated"),
        (records(replay_agreement=lambda step: 0.7), "forgets: .* 70.0 % .* 80.0 %"),
        (records() + scored(0.2, 0.5, 0.3), "fallen: val/mIoU is 30.0 % now and was 50.0 % at iteration 10"),
    ],
)
def test_named(lines, said):
    [sentence] = judge_records(lines, "val/mIoU")
    assert re.search(said, sentence)


def test_a_sound_run_and_one_that_is_too_short_to_tell():
    odd_line = records(student_loss=lambda step: 9.0 if step == 7 else 1.0, replay_agreement=lambda step: 0.79)
    assert judge_records(odd_line + scored(0.1, 0.5, 0.45), "val/mIoU") == []
    assert judge_records(records()[:4]) is None and judge_records([]) is None


def test_averages_and_single_classes():
    assert "6.7 % and 47.4 %" in judge_average(0.067, 0.474) and judge_average(0.5, 0.5) is None
    assert "nearly) one class" in judge_predictions(0.999, 0.35)
    # Where the truth is nearly one class, so are good predictions.
    assert judge_predictions(0.98, 0.97) is None and judge_predictions(0.999, 0.97) is not None
