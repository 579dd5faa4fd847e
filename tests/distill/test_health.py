"""Training that goes wrong: each way is provoked, and each policy looked at."""

import math

import pytest
import torch
import toys
from toys import equal_states, fabric, json_like_copy

from dfad_seg.common.errors import Diverged
from dfad_seg.distill import (
    GameSettings,
    HealthSettings,
    Hooks,
    TrainingSettings,
    build_schedule,
    distil_data_free,
    train_supervised,
)
from dfad_seg.distill.health import Health, all_finite
from dfad_seg.distill.steps import supervised_step
from dfad_seg.objectives import GeneratorObjective
from dfad_seg.objectives.discrepancy import log_mae, mae
from dfad_seg.segmentors import freeze

RATE = 0.05


class Run:
    """A small game with a memory of what it saved and reported; `poison(iteration, rate)` spoils gradients."""

    def __init__(self, poison=lambda iteration, rate: False, *, iterations=8, student=None, teacher=None, **health):
        self.saved, self.events, self.records, self.rewound = {}, [], [], []
        self.iteration = 0
        student = toys.segmentor(0) if student is None else student
        optimizer = torch.optim.SGD(student.parameters(), lr=RATE, momentum=0.9)

        def loss(student_logits, teacher_logits):
            value = mae(student_logits, teacher_logits)
            if poison(self.iteration + 1, optimizer.param_groups[0]["lr"]):
                # Finite itself, but its gradient is 0 times infinity.
                value = value + 0 * (student_logits * 0).sum().sqrt()
            return value

        def load(before):
            fitting = [step for step in self.saved if step <= before] or sorted(self.saved)[:1]
            return json_like_copy(self.saved[max(fitting)]) if fitting else None

        def rewind(step):
            self.rewound.append(step)
            self.iteration = step
            self.saved = {s: state for s, state in self.saved.items() if s <= step}

        self.hooks = Hooks(
            log=lambda step, scalars: self.records.append({"step": step, **scalars}),
            save=lambda step, state: self.saved.update({step: json_like_copy(state)}),
            load=load,
            rewind=rewind,
            event=lambda step, record: self.events.append({"step": step, **record}),
            advance=lambda step: setattr(self, "iteration", step),
            log_every=2,
            save_every=2,
        )
        self.student, self.optimizer, self.loss = student, optimizer, loss
        self.teacher = toys.teacher() if teacher is None else teacher
        self.settings = GameSettings(
            iterations=iterations,
            student_steps=2,
            batch_size=4,
            image_size=toys.SIZE,
            seed=7,
            health=HealthSettings(**health),
        )

    def play(self, state=None):
        generator = toys.generator()
        self.iteration = 0 if state is None else state["iteration"]
        return distil_data_free(
            fabric=fabric(),
            teacher=self.teacher,
            student=self.student,
            generator=generator,
            student_optimizer=self.optimizer,
            generator_optimizer=torch.optim.Adam(generator.parameters(), lr=1e-3),
            student_loss=self.loss,
            objective=GeneratorObjective(log_mae),
            schedule=build_schedule("constant", iterations=self.settings.iterations),
            settings=self.settings,
            hooks=self.hooks,
            state=state,
        )

    def kinds(self):
        return [event["event"] for event in self.events]


@pytest.fixture(scope="module")
def healthy():
    run = Run()
    return run, run.play()


@pytest.mark.parametrize("policy", ["skip", "roll_back"])
def test_no_policy_changes_a_healthy_run(healthy, policy):
    run = Run(not_finite=policy)
    kept = run.play()
    assert equal_states(kept, healthy[1]) and run.events == []
    assert run.records == healthy[0].records


def test_bad_gradients_stop_before_anything_bad_is_saved(healthy):
    # The loss of iteration 5 is finite; what the step does to the weights is not.
    run = Run(lambda iteration, rate: iteration == 5)
    with pytest.raises(Diverged, match="iteration 6.*clip_norm") as stopped:
        run.play()
    assert sorted(run.saved) == [2, 4] and stopped.value.iteration == 4
    assert run.kinds() == ["not_finite"]
    # What is handed over is the student of the last good save, and usable.
    saved = healthy[0].saved[4]["networks"]["student"]
    assert all(torch.equal(value, saved[name]) for name, value in stopped.value.kept.state_dict().items())
    assert not stopped.value.kept.training


def test_weights_are_looked_at_before_a_save_between_log_points():
    run = Run(lambda iteration, rate: iteration == 3)
    run.hooks.log_every, run.hooks.save_every = 100, 1
    with pytest.raises(Diverged, match="iteration 3"):
        run.play()
    assert sorted(run.saved) == [1, 2]


def test_skipping_leaves_out_the_step_and_nothing_else():
    run = Run(lambda iteration, rate: iteration == 3, not_finite="skip")
    kept = run.play()
    assert [(e["event"], e["found_at"]) for e in run.events] == [("skipped", 3)]
    assert "2 steps" in run.events[0]["cause"]
    assert all(torch.isfinite(value).all() for value in kept.state_dict().values())
    assert run.iteration == 8 and run.records[-1]["train/student_loss"] > 0


def test_a_skipped_step_changes_neither_weights_nor_statistics():
    network = toys.segmentor(0)
    network.train()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    health = Health(HealthSettings(not_finite="skip"))
    health.watch([network], [optimizer])
    before = json_like_copy(network.state_dict())
    images, labels = torch.rand(2, 3, 8, 8), torch.zeros(2, 8, 8, dtype=torch.long)

    def attempt(factor):
        loss = lambda logits, labels: factor * torch.nn.functional.cross_entropy(logits, labels)  # noqa: E731
        return health.attempt(
            supervised_step, model=network, images=images, labels=labels, optimizer=optimizer, loss_fn=loss
        )

    assert attempt(float("nan")) is None and health.take_skips() == 1 and health.take_skips() == 0
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert optimizer.state == {}
    assert attempt(1.0) is not None
    assert not all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_too_many_skips_stop():
    run = Run(lambda iteration, rate: iteration >= 3, not_finite="skip", skips=3)
    with pytest.raises(Diverged, match=r"\d steps one after the other"):
        run.play()
    assert max(run.saved) == 2


def test_rolling_back_equals_a_run_that_began_there_with_a_lower_rate(healthy):
    run = Run(lambda iteration, rate: iteration == 6 and rate == RATE, not_finite="roll_back")
    kept = run.play()
    assert run.rewound == [4]
    (event,) = run.events
    assert event["step"] == 4 and event["found_at"] == 6 and "times 0.5" in event["cause"]
    state = json_like_copy(healthy[0].saved[4])
    for group in state["optimizers"]["student"]["param_groups"] + state["optimizers"]["generator"]["param_groups"]:
        group["base_lr"] /= 2
    assert equal_states(kept, Run().play(state))
    assert run.records[-1]["train/student_lr"] == RATE / 2
    # A run that is killed after its return goes on with the lower rate.
    assert equal_states(kept, Run(not_finite="roll_back").play(run.saved[4]))


def test_rolling_back_is_bounded():
    run = Run(lambda iteration, rate: iteration == 3, not_finite="roll_back", roll_backs=2)
    with pytest.raises(Diverged, match="after 2 returns") as stopped:
        run.play()
    assert run.rewound == [2, 2] and stopped.value.iteration == 2
    assert run.saved[2]["health"]["rate_scale"] == 0.25


def test_rolling_back_before_the_first_save_goes_to_the_start():
    run = Run(lambda iteration, rate: iteration == 1 and rate == RATE, not_finite="roll_back")
    run.play()
    assert run.rewound == [0]


def large_student(factor=1e6):
    student = toys.segmentor(0)
    with torch.no_grad():
        student.network[-1].weight.mul_(factor)
    return student


def test_exploding_logits_are_named_once():
    run = Run(student=large_student())
    run.play()
    assert run.kinds().count("exploding") == 1 and "max_logit" in run.events[0]["cause"]
    assert run.records[0]["train/student_logit_peak"] > 1e4
    quiet = Run(student=large_student(), exploding="ignore", dead_student="ignore")
    quiet.play()
    assert quiet.events == []


def test_exploding_logits_can_stop():
    run = Run(student=large_student(), exploding="stop")
    with pytest.raises(Diverged, match="logits grow.*iteration 2"):
        run.play()


def test_exploding_logits_do_not_hide_a_statistic_that_is_not_finite():
    student = large_student()
    student.network[1].running_var[0] = math.inf
    run = Run(student=student)
    with pytest.raises(Diverged, match="statistics are not finite"):
        run.play()
    assert run.saved == {}


def constant_teacher():
    teacher = toys.segmentor(100)
    with torch.no_grad():
        teacher.network[-1].weight.mul_(1e-3)
        teacher.network[-1].bias.copy_(torch.tensor([0.0, 5.0, 0.0]))
    return freeze(teacher)


def test_collapse_is_noticed_after_the_patience():
    run = Run(teacher=constant_teacher(), patience=4)
    run.play()
    (event,) = run.events
    assert (event["event"], event["found_at"]) == ("collapse", 4) and "one class" in event["cause"]


def test_collapse_goes_back_to_before_it_began_and_stops_in_the_end():
    run = Run(teacher=constant_teacher(), patience=4, collapse="roll_back", roll_backs=1)
    with pytest.raises(Diverged, match="one class"):
        run.play()
    assert run.rewound == [0]


def test_collapse_needs_a_generator_that_is_trained():
    assert Health(HealthSettings(patience=1)).look(5, {"train/student_class_entropy": 0.0}) == []


def dead_student():
    student = toys.segmentor(0)
    with torch.no_grad():
        student.network[-1].weight.zero_()
        student.network[-1].bias.copy_(torch.tensor([1e3, 0.0, 0.0]))
    return student


@pytest.mark.parametrize("policy, ends", [("warn", False), ("stop", True)])
def test_a_constant_student_is_dead(policy, ends):
    run = Run(student=dead_student(), dead_student=policy, patience=4)
    if ends:
        with pytest.raises(Diverged, match="constant answer"):
            run.play()
    else:
        run.play()
    assert run.kinds() == ["dead_student"] and run.events[0]["found_at"] == 4


def test_spells_by_hand():
    """Patience counts from the last look without trouble; a spell that ends is forgotten, and named anew later."""
    health = Health(HealthSettings(patience=20), trained_generator=True)
    entropies = {10: 0.5, 20: 0.01, 30: 0.01, 40: 0.01, 50: 0.5, 60: 0.0, 70: 0.0, 80: 0.0}
    found = {step: health.look(step, {"train/student_class_entropy": value}) for step, value in entropies.items()}
    assert {step: [t.since for t in troubles] for step, troubles in found.items() if troubles} == {30: [10], 70: [50]}
    again = Health(HealthSettings(patience=20), trained_generator=True)
    again.load_state_dict(health.state_dict())
    assert again.look(90, {"train/student_class_entropy": 0.0}) == []  # warned of before it was saved


def test_all_finite_sees_weights_statistics_and_losses():
    network = toys.segmentor(0)
    assert all_finite([network], [torch.tensor(1.0)]) == 1
    assert all_finite([network], [torch.tensor(math.inf)]) == 0
    network.network[1].running_var[2] = math.nan
    assert all_finite([network]) == 0


def test_training_with_data_rolls_back():
    """The poisoned loss comes once; the result is that of a run with the lower rate from the saved state on."""

    def batches_from(start):
        for index in range(start, 6):
            seeded = torch.Generator().manual_seed(index)
            yield {
                "image": torch.rand(2, 3, 8, 8, generator=seeded),
                "mask": torch.randint(0, toys.CLASSES, (2, 8, 8), generator=seeded),
            }

    def train(poisoned, state=None):
        network, saved, events = toys.segmentor(0), {}, []
        calls = [0]

        def loss(logits, labels):
            calls[0] += 1
            value = torch.nn.functional.cross_entropy(logits, labels)
            return value * float("nan") if poisoned and calls[0] == 4 else value

        kept = train_supervised(
            fabric=fabric(),
            network=network,
            batches_from=batches_from,
            optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
            loss_fn=loss,
            schedule=build_schedule("constant", iterations=6),
            settings=TrainingSettings(iterations=6, health=HealthSettings(not_finite="roll_back")),
            state=state,
            hooks=Hooks(
                save=lambda step, state: saved.update({step: json_like_copy(state)}),
                load=lambda before: json_like_copy(saved[max(s for s in saved if s <= before)]),
                event=lambda step, record: events.append(record),
                log_every=1,
                save_every=2,
            ),
        )
        return kept, saved, events

    kept, saved, events = train(True)
    assert [(e["event"], e["found_at"]) for e in events] == [("not_finite", 4)]
    assert equal_states(kept, train(False, saved[2])[0]) and not equal_states(kept, train(False)[0])
