"""Training that goes wrong: each way is provoked, named, and ended where nothing can be saved any more."""

import pytest
import torch
import toys
from playing import play
from toys import json_like_copy

from dfad_seg.common.errors import Diverged
from dfad_seg.distill import Hooks, health
from dfad_seg.distill.health import Health
from dfad_seg.distill.losses import losses_of
from dfad_seg.objectives.discrepancy import mae
from dfad_seg.segmentors import freeze


class Run:
    """A small game with a memory of what it saved and reported; `poison(iteration)` spoils gradients."""

    def __init__(self, poison=lambda iteration: False, **networks):
        self.saved, self.events, self.records = {}, [], []
        self.iteration, self.poison, self.networks = 0, poison, networks
        self.hooks = Hooks(
            save=lambda step, state: self.saved.update({step: json_like_copy(state)}),
            event=lambda step, record: self.events.append({"step": step, **record}),
            advance=lambda step: setattr(self, "iteration", step),
            log_every=2,
            save_every=2,
        )

    def play(self):
        def losses(game, teacher, student, generator):
            made = losses_of(game, teacher=teacher, student=student, generator=generator)
            made.student = loss
            return made

        def loss(student_logits, teacher_logits):
            value = mae(student_logits, teacher_logits)
            if self.poison(self.iteration + 1):
                # Finite itself, but its gradient is 0 times infinity.
                value = value + 0 * (student_logits * 0).sum().sqrt()
            return value

        _, _, self.records = play(hooks=self.hooks, losses=losses, iterations=8, dropout=0.0, **self.networks)

    def kinds(self):
        return [event["event"] for event in self.events]


def test_bad_gradients_stop_before_anything_bad_is_saved():
    # The loss of iteration 5 is finite; what the step does to the weights is not.
    run = Run(lambda iteration: iteration == 5)
    with pytest.raises(Diverged, match="iteration 6.*iteration 4 was saved.*clip_norm") as stopped:
        run.play()
    assert sorted(run.saved) == [2, 4] and stopped.value.iteration == 4
    assert run.kinds() == ["not_finite"] and run.events[0]["found_at"] == 6
    # What is handed over is the student of the last good save, and usable.
    saved = run.saved[4]["networks"]["student"]
    assert all(torch.equal(value, saved[name]) for name, value in stopped.value.kept.state_dict().items())
    assert not stopped.value.kept.training


def test_weights_are_looked_at_before_a_save_between_log_points():
    run = Run(lambda iteration: iteration == 3)
    run.hooks.log_every, run.hooks.save_every = 100, 1
    with pytest.raises(Diverged, match="iteration 3"):
        run.play()
    assert sorted(run.saved) == [1, 2]


def large_student(factor=1e6):
    student = toys.segmentor(0)
    with torch.no_grad():
        student.network[-1].weight.mul_(factor)
    return student


def test_exploding_logits_are_named_once_and_end_nothing():
    run = Run(student=large_student())
    run.play()
    assert run.kinds().count("exploding") == 1 and "logits grow" in run.events[0]["cause"]
    assert run.records[0]["train/student_logit_peak"] > 1e4 and run.iteration == 8


def constant_teacher():
    teacher = toys.segmentor(100)
    with torch.no_grad():
        teacher.network[-1].weight.mul_(1e-3)
        teacher.network[-1].bias.copy_(torch.tensor([0.0, 5.0, 0.0]))
    return freeze(teacher)


def dead_student():
    student = toys.segmentor(0)
    with torch.no_grad():
        student.network[-1].weight.zero_()
        student.network[-1].bias.copy_(torch.tensor([1e3, 0.0, 0.0]))
    return student


@pytest.mark.parametrize(
    "networks, kind, cause",
    [
        ({"teacher": constant_teacher()}, "collapse", "one class"),
        ({"student": dead_student()}, "dead_student", "constant prediction"),
    ],
)
def test_what_lasts_is_named_after_the_patience(monkeypatch, networks, kind, cause):
    monkeypatch.setattr(health, "PATIENCE", 4)
    run = Run(**networks)
    run.play()
    (event,) = run.events
    assert (event["event"], event["found_at"]) == (kind, 4) and cause in event["cause"]


def test_spells_by_hand(monkeypatch):
    """Patience counts from the last look without trouble; a spell that ends is forgotten, and named anew later."""
    monkeypatch.setattr(health, "PATIENCE", 20)
    noticing = Health(trained_generator=True)
    entropies = {10: 0.5, 20: 0.01, 30: 0.01, 40: 0.01, 50: 0.5, 60: 0.0, 70: 0.0, 80: 0.0}
    found = {step: noticing.look(step, {"train/student_class_entropy": value}) for step, value in entropies.items()}
    assert [step for step, troubles in found.items() if troubles] == [30, 70]
    again = Health(trained_generator=True)
    again.load_state_dict(noticing.state_dict())
    assert again.look(90, {"train/student_class_entropy": 0.0}) == []  # named before it was saved
    untrained = Health()  # there is no generator that could collapse
    assert untrained.look(50, {"train/student_class_entropy": 0.0}) == []
