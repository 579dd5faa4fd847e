"""Moving averages of the networks: what is averaged, and what is copied."""

import torch
from test_loops import play
from toys import json_like_copy

from dfad_seg.distill import Hooks


def test_what_a_generator_knows_is_copied_into_its_average_and_not_blended():
    saved = {}
    hooks = Hooks(save=lambda step, state: saved.setdefault(step, json_like_copy(state)), save_every=3)
    play(iterations=3, layouts=True, generator_ema_decay=0.5, hooks=hooks)
    known, average = saved[3]["networks"]["generator"], saved[3]["averages"]["generator"]
    for name in ("answers", "answer_shares", "answered", "class_frequencies"):
        assert torch.equal(known[name], average[f"module.{name}"]), name
    assert known["answered"] > 0
    assert any(not torch.equal(value, average[f"module.{name}"]) for name, value in known.items())


def test_processes_exchange_nothing_that_lies_elsewhere(monkeypatch):
    """The counters of the moving averages stay on the CPU, and the processes of GPUs cannot send from there."""
    sent = []
    monkeypatch.setattr("dfad_seg.distill.training.broadcast_buffers", lambda fabric, *networks: sent.extend(networks))
    play(iterations=1, ema_decay=0.5, generator_ema_decay=0.5)
    names = {name for network in sent for name, _ in network.named_buffers()}
    assert len(sent) == 4 and "n_averaged" not in names and any("running_mean" in name for name in names)
