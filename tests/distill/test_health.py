"""Training that goes wrong is ended before anything bad is saved; what else is unsound, the record says."""

import re

import pytest
import torch
from playing import play
from toys import json_like_copy

from dfad_seg.common.errors import Diverged
from dfad_seg.distill import Hooks
from dfad_seg.distill.health import judge_average, judge_predictions, judge_records
from dfad_seg.distill.losses import losses_of
from dfad_seg.objectives.discrepancy import mae


@pytest.mark.parametrize(
    ("spoilt", "log_every", "save_every", "found", "saved"),
    [
        (5, 2, 2, 6, [2, 4]),  # that loss is finite; what the step does to the weights is not
        (3, 100, 1, 3, [1, 2]),  # weights are looked at before a save between log points, too
    ],
)
def test_bad_gradients_stop_before_anything_bad_is_saved(spoilt, log_every, save_every, found, saved):
    states, events, done = {}, [], [0]
    hooks = Hooks(
        save=lambda step, state: states.update({step: json_like_copy(state)}),
        event=lambda step, record: events.append(record),
        advance=done.append,
        log_every=log_every,
        save_every=save_every,
    )

    def losses(game, teacher, student, generator):
        made = losses_of(game, teacher=teacher, student=student, generator=generator)
        made.student = loss
        return made

    def loss(student_logits, teacher_logits):
        value = mae(student_logits, teacher_logits)
        # Finite itself, but its gradient is 0 times infinity.
        return value + 0 * (student_logits * 0).sum().sqrt() if done[-1] + 1 == spoilt else value

    with pytest.raises(Diverged, match=f"iteration {found}.*iteration {saved[-1]} was saved.*clip_norm") as stopped:
        play(hooks=hooks, losses=losses, iterations=8, dropout=0.0)
    assert sorted(states) == saved and stopped.value.iteration == saved[-1]
    assert [(event["event"], event["found_at"]) for event in events] == [("not_finite", found)]
    # What is handed over is the student of the last good save, and usable.
    student = states[saved[-1]]["networks"]["student"]
    assert all(torch.equal(value, student[name]) for name, value in stopped.value.kept.state_dict().items())
    assert not stopped.value.kept.training


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
        (records(student_logit_peak=lambda step: 2e4), "logits have grown to 2e"),
        (records(generator_loss=lambda step: 1.0, student_class_entropy=lambda step: 0.01), "collapsed: .* one class"),
        (records(student_largest_class=lambda step: 0.9), "dead: .* 80.0 % .* constant prediction would on 90.0 %"),
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
