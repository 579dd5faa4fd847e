"""Learning-rate schedules and optimisers."""

import math

import pytest
import torch
from torch import nn

from dfad_seg.distill import Game, build_optimizer, build_schedule


def schedule(iterations=100, **section):
    return build_schedule(Game.of(schedule=section).schedule, iterations)


def test_against_the_papers_formulas():
    assert schedule(type="constant")(17) == 1
    assert [schedule(type="step", every=10)(i) for i in (0, 9, 10, 25)] == pytest.approx([1, 1, 0.1, 0.01])
    assert schedule(type="poly", power=0.9)(30) == pytest.approx(0.7**0.9)
    assert schedule(type="poly", end=0.2)(100) == pytest.approx(0.2)
    assert schedule(type="cosine")(25) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert schedule(type="cosine", end=0.1)(100) == pytest.approx(0.1)


def test_warmup_rises_in_equal_steps_to_what_it_would_be():
    warm, plain = schedule(type="cosine", warmup=10), schedule(type="cosine")
    assert [warm(i) / plain(i) for i in range(12)] == pytest.approx([*(k / 10 for k in range(1, 11)), 1, 1])


def test_optimisers_are_torchs():
    network = nn.Linear(2, 2)
    section = {"type": "adamw", "lr": 0.5, "betas": [0.5, 0.9], "weight_decay": 0.1}
    optimizer = build_optimizer(Game.of(student_optimizer=section).student_optimizer, network)
    assert isinstance(optimizer, torch.optim.AdamW)
    (group,) = optimizer.param_groups
    found = (group["lr"], group["betas"], group["weight_decay"], len(group["params"]))
    assert found == (0.5, (0.5, 0.9), 0.1, 2)
    plain = build_optimizer(Game().student_optimizer, network)
    assert isinstance(plain, torch.optim.SGD) and plain.defaults["momentum"] == 0.9 and plain.defaults["lr"] == 0.1
