"""Warnings in plain words: each provoked, and none on a healthy run."""

import pytest
from report_samples import evaluation, training

from dfad_seg.report.health import can_judge, health_warnings

HEALTHY = [training(step) for step in range(1, 31)]


def changed(where, **changes):
    """The healthy run with other values at the steps `where` says."""
    return [training(step, **changes) if where(step) else training(step) for step in range(1, 31)]


def late(step):
    return step > 20


def test_a_healthy_run_has_no_warning():
    assert health_warnings(HEALTHY) == []
    assert can_judge(HEALTHY) and not can_judge(HEALTHY[:4])


SICK = [
    (changed(late, student_class_entropy=0.01, student_largest_class=0.97), "has collapsed", "97 %"),
    (changed(late, student_agreement=0.999), "99.9 %", "next to nothing left"),
    (changed(late, student_agreement=0.8, replay_agreement=0.6), "forgets", "60.0 %"),
    (changed(late, student_loss=2.0), "has grown", "times its lowest level"),
    (changed(lambda s: s == 7, student_loss=None), "diverged", "at iteration 7"),
    ([*HEALTHY, evaluation(10, (0.6, 0.6, 0.6)), evaluation(30, (0.2, 0.3, 0.4))], "fallen", "60.0 % at iteration 10"),
    ([*HEALTHY, {"step": 12, "health/generator_collapse": 1.0}], "generator collapse, at iteration 12", ""),
    (
        [{"step": 3, "health/rolled_back": 1}, {"step": 9, "health/rolled_back": "loss is nan"}],
        "rolled back, 2 times, from iteration 3 to 9: loss is nan",
        "",
    ),
]


@pytest.mark.parametrize(("records", "words", "more"), SICK)
def test_what_is_wrong_is_said_once(records, words, more):
    found = health_warnings(records)
    assert len(found) == 1
    assert words in found[0] and more in found[0]


@pytest.mark.parametrize(
    "records",
    [
        [],
        [{"step": 1, "health/dead_student": 0.0}, {"step": 2, "health/dead_student": None}],
        changed(lambda s: s == 30, student_class_entropy=0.0),  # one odd line
        changed(late, student_agreement=0.8, replay_agreement=0.79),
        [evaluation(10, (0.6, 0.6, 0.6)), evaluation(30, (0.6, 0.5, 0.5))],
        changed(lambda s: s > 3, student_class_entropy=0.01)[:4],  # too early to tell
    ],
)
def test_what_is_no_reason_to_warn(records):
    assert health_warnings(records) == []


def test_events_of_the_training_are_told_with_their_cause():
    events = [
        {"step": 8, "event": "rolled_back", "cause": "the loss is not finite.", "found_at": 9},
        {"step": 10, "event": "dead_student", "cause": "one answer for 500 iterations", "found_at": 10},
    ]
    assert health_warnings(HEALTHY, events) == [
        "Noted during training: rolled back, at iteration 9: the loss is not finite.",
        "Noted during training: dead student, at iteration 10: one answer for 500 iterations.",
    ]
