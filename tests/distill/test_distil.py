"""The game: golden curve, resume, controls, interruption, and what each of its options does."""

import json
import sys
from pathlib import Path

import pytest
import torch
import toys
from playing import play
from shared import python
from toys import equal_states, json_like_copy

from dfad_seg.common.errors import InputError, Interrupted
from dfad_seg.distill import Hooks, Replay

GOLDEN = Path(__file__).parent / "golden_dfad.json"


def test_golden_curve():
    """Five iterations against numbers recorded once; a change of the method's arithmetic shows here.

    The file was written by this very game when it agreed with the transcription in test_steps.py. Where a change
    is meant, correct the file by hand from the failure's output and say so in the changelog.
    """
    golden = json.loads(GOLDEN.read_text())
    _, _, records = play(dropout=0.0)
    for expected, record in zip(golden, records, strict=True):
        for name, value in expected.items():
            assert record[name] == pytest.approx(value, rel=2e-3), (name, record["step"])


REPLAY = {"size": 8, "steps": 1, "logits": "kept"}
EVERYTHING = {"ema_decay": 0.5, "student_norm": "batch", "interpolation": {}, "activation_boundary": 0.1}
GROWING = {"batch_size": 16, "progressive_sizes": [(8, 8), toys.SIZE], "replay": REPLAY | {"size": 64}}


@pytest.mark.parametrize(
    "changes",
    [
        EVERYTHING | {"replay": {"size": 6, "steps": 1, "final_steps": 3}},
        EVERYTHING | {"replay": REPLAY},
        {"simultaneous": True, "replay": REPLAY, "logit_pooling": 4},
        {"logit_adjustment": 0.5, "replay": REPLAY, "ema_decay": 0.5},
        {"channels": 1, "replay": REPLAY},
        {"layouts": {"sub_generators": 3}, "batch_size": 32, "iterations": 6},
        {"layouts": {}, "iterations": 6, "simultaneous": True} | GROWING,
    ],
)
def test_resumed_equals_uninterrupted(changes):
    saved = {}
    hooks = Hooks(save=lambda step, state: saved.setdefault(step, json_like_copy(state)), save_every=2, log_every=3)
    whole, whole_generator, records = play(hooks=hooks, **changes)
    for step in (2, 4):
        resumed, generator, rest = play(state=saved[step], hooks=Hooks(log_every=3), **changes)
        assert equal_states(resumed, whole)
        assert equal_states(generator, whole_generator)
        # A log point after the break averages iterations from before it, too.
        assert rest == [r for r in records if r["step"] > step]


def test_a_state_of_another_game_is_refused():
    saved = {}
    play(iterations=1, hooks=Hooks(save=lambda step, state: saved.update(state)))
    with pytest.raises(InputError, match="does not fit this run.*resume from another checkpoint"):
        play(state=saved, ema_decay=0.5)


def test_the_generator_aims_at_the_shares_that_its_images_tell():
    saved = {}
    hooks = Hooks(save=lambda step, state: saved.setdefault(step, state), save_every=5)
    _, generator, _ = play(layouts={}, hooks=hooks)
    shares = saved[5]["networks"]["class_shares"]["shares"]
    torch.testing.assert_close(generator.class_frequencies, shares)
    assert generator.tilt.any() and (shares - 1 / toys.CLASSES).abs().max() > 1e-3


def test_adjustment_learns_from_new_images_and_changes_the_student():
    saved = {}
    hooks = Hooks(save=lambda step, state: saved.setdefault(step, state), save_every=5)
    adjusted, _, _ = play(logit_adjustment=0.5, replay={"size": 8, "steps": 2}, hooks=hooks)
    state = saved[5]["networks"]["adjustment"]
    assert state["batches"] == 5 * 2  # remembered ones do not count again
    assert (state["shares"] - 1 / toys.CLASSES).abs().max() > 1e-3
    plain, _, _ = play(replay={"size": 8, "steps": 2})
    assert not equal_states(adjusted, plain)
    assert not equal_states(play(replay={"size": 8, "steps": 2}, logit_pooling=4)[0], plain)


@pytest.mark.parametrize(
    "changes, per_iteration",
    [({}, 2 + 1), ({"replay": REPLAY}, 2 + 1), ({"replay": {"size": 8, "steps": 3}}, 2 + 3 + 1),
     ({"simultaneous": True}, 1 + 1)],
)  # fmt: skip
def test_how_often_the_teacher_is_asked(changes, per_iteration):
    teacher, calls = toys.teacher(), []
    teacher.register_forward_hook(lambda *_: calls.append(1))
    _, _, records = play(teacher=teacher, **changes)
    assert len(calls) == 5 * per_iteration + 1  # the preview after the last iteration
    replayed = ["train/replay_agreement" in record for record in records]
    assert replayed == [("replay" in changes)] * 5


def test_simultaneous_play_teaches_the_generators_own_images(monkeypatch):
    module = sys.modules["dfad_seg.distill.distil"]
    moved, lessons = [], []

    def recording(step, found):
        def played(**named):
            result = step(**named)
            found.append((named, result))
            return result

        return played

    monkeypatch.setattr(module, "generator_step", recording(module.generator_step, moved))
    monkeypatch.setattr(module, "student_step", recording(module.student_step, lessons))
    play(simultaneous=True)
    assert len(moved) == 5 and len(lessons) == 10
    for (_, own), (first, _), (second, _) in zip(moved, lessons[::2], lessons[1::2], strict=True):
        assert first["images"] is own.images and torch.equal(first["teacher_logits"], own.logits)
        assert second["teacher_logits"] is None


def test_replay_steps_follow_the_learning_rate():
    falling = lambda iteration: 1 - iteration / 4  # noqa: E731
    growing = Replay(size=64, steps=1, final_steps=5)
    assert [growing.steps_at(i, falling, warmup=0) for i in range(5)] == [1, 2, 3, 4, 5]
    assert Replay(size=64, steps=2).steps_at(4, falling, warmup=0) == 2
    warm = lambda iteration: (iteration + 1) / 10 if iteration < 10 else 1 - (iteration - 10) / 10  # noqa: E731
    assert [growing.steps_at(i, warm, warmup=10) for i in (0, 5, 9, 20)] == [1, 1, 1, 5]


def test_the_average_is_the_exponential_one_with_a_short_memory_at_first():
    weights = []
    hooks = Hooks(save=lambda step, state: weights.append(json_like_copy(state)["networks"]["student"]), save_every=1)
    kept, _, _ = play(hooks=hooks, ema_decay=0.3)
    for name in ("network.0.weight", "network.1.running_var"):
        expected = weights[0][name]  # update 0
        for t, later in enumerate(weights[1:], start=1):
            decay = min(0.3, (1 + t) / (10 + t))  # 2/11, 3/12, 0.3, 0.3
            expected = decay * expected + (1 - decay) * later[name]
        torch.testing.assert_close(kept.state_dict()[name], expected)


def test_processes_exchange_nothing_that_lies_elsewhere(monkeypatch):
    """The counter of the moving average stays on the CPU, and the processes of GPUs cannot send it from there."""
    sent = []
    monkeypatch.setattr("dfad_seg.distill.training.broadcast_buffers", lambda fabric, *networks: sent.extend(networks))
    play(iterations=1, ema_decay=0.5)
    names = {name for network in sent for name, _ in network.named_buffers()}
    assert len(sent) == 3 and "n_averaged" not in names and any("running_mean" in name for name in names)


@pytest.mark.parametrize("fault", [Interrupted, OSError])
def test_an_evaluation_that_a_stop_or_its_own_failure_cost_is_made_up_for(fault):
    saved, count = {}, iter(range(1, 100))

    def broken(network):
        raise OSError("a truncated image")

    def evaluate(network):
        assert not network.training
        return {"val/mIoU": 0.5}

    hooks = Hooks(save=lambda step, state: saved.update({step: json_like_copy(state)}), evaluate=broken)
    hooks.evaluate_every, hooks.stop_requested = 2, lambda: fault is Interrupted and next(count) == 2
    with pytest.raises(fault) as stopped:
        play(hooks=hooks)
    assert list(saved) == [2] and saved[2]["evaluation_pending"]
    assert fault is OSError or stopped.value.iteration == 2
    kept, _, records = play(state=saved[2], hooks=Hooks(evaluate=evaluate, evaluate_every=2))
    assert [r["step"] for r in records if "val/mIoU" in r] == [2, 4, 5]
    assert equal_states(kept, play()[0])  # evaluations change nothing


def test_preview_shows_the_same_latents_every_time_and_touches_nothing():
    seen = []
    hooks = Hooks(preview=lambda step, *pictures: seen.append((step, *pictures)), preview_every=2)
    kept, generator, _ = play(hooks=hooks)
    assert [step for step, *_ in seen] == [2, 4, 5]
    images, teacher_labels, student_labels = seen[-1][1:]
    assert torch.equal(teacher_labels, toys.teacher()(images).argmax(1))
    assert torch.equal(student_labels, kept(images).argmax(1))
    assert equal_states(generator, play()[1])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"layouts": {"sub_generators": 5}}, "needs batches of 5 images, and the smallest has 4"),
        ({"progressive_sizes": [(8, 8), toys.SIZE], "batch_size": 8}, r"images of \(16, 16\) only, and \(8, 8\)"),
        ({"priors": {"layout_consistency": 1}}, "layout_consistency needs a generator of layouts"),
    ],
)
def test_a_generator_that_does_not_fit_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        play(**changes)


@pytest.mark.slow
def test_two_processes_keep_equal_weights_draw_different_noise_and_resume(tmp_path):
    python(Path(__file__).with_name("two_processes.py"), tmp_path, CUDA_VISIBLE_DEVICES="")
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    for player in ("student", "generator", "connectors"):
        for name in ranks[0][player]:
            assert torch.equal(ranks[0][player][name], ranks[1][player][name]), (player, name)
    assert not torch.equal(ranks[0]["noise"], ranks[1]["noise"])
    # Each rank goes on with its own replay memory, of which the one file of rank 0 holds all; a save changes nothing.
    for name, value in ranks[0]["student"].items():
        assert torch.equal(ranks[0]["resumed"]["student"][name], value), name
    # The same mathematics: without BatchNorm, two ranks of batch 4 take the step of one process with batch 8.
    for name, value in ranks[0]["one"].items():
        torch.testing.assert_close(ranks[0]["two"][name], value, rtol=0, atol=1e-6)
