"""Runs that diverge, through the tool: exit codes, the network that is left, and what the run directory says."""

import json
import signal

import pytest
import torch
from harness import assert_equal_runs, lines, tiny_config

from dfad_seg.runs import checkpoints, read_events, read_metrics
from dfad_seg.segmentors import load_segmentor

RATE = {"type": "sgd", "lr": 1.0e30}
"""The first step takes the weights beyond what a number can hold."""


def test_stopping_leaves_a_usable_student(server, tmp_path, tiny_scenes):
    # Two good iterations; then the rates rise beyond what weights can follow.
    optimizer, schedule = {"type": "sgd", "lr": 0.01}, {"type": "step", "every": 2, "gamma": 1e32}
    config = tiny_config(
        tmp_path,
        tiny_scenes,
        iterations=4,
        student_optimizer=optimizer,
        schedule=schedule,
        save_every=1,
        log_every=1,
        ema_decay=...,
    )
    run = tmp_path / "run"
    code, output = server.call("train", config, "--work-dir", run)
    assert code == 3 and "Traceback" not in output, output
    assert "training diverged" in output and "health" in output
    assert not (run / "student.pt").exists(), "nobody may take it for a finished run"
    kept = load_segmentor(run / "last_good_student.pt", trust=True)
    assert torch.isfinite(kept(torch.rand(1, 3, 16, 16))).all()
    state = torch.load(checkpoints(run)[-1], weights_only=True)
    assert state["iteration"] == 2
    saved = state["networks"]["student"]
    assert all(torch.equal(value, saved[name]) for name, value in kept.state_dict().items())
    event = read_events(run)[-1]
    assert event["event"] == "not_finite" and event["found_at"] == 3 and "stopped" in event["cause"]
    assert not any("event" in record for record in read_metrics(run))
    # The policy is no part of the experiment: the same run goes on with another one.
    options = ["--cfg-options", "health.not_finite=roll_back", "health.rate_factor=1.0e-32"]
    code, output = server.call("train", config, "--work-dir", run, "--resume", *options)
    assert code == 0, output
    assert (run / "student.pt").exists() and not (run / "last_good_student.pt").exists()


@pytest.fixture(scope="module")
def rolled_back(server, tmp_path_factory, tiny_scenes):
    folder = tmp_path_factory.mktemp("rolled_back")
    health = {"not_finite": "roll_back", "rate_factor": 1e-32}
    config = tiny_config(folder, tiny_scenes, iterations=12, student_optimizer=RATE, health=health, evaluation=...)
    code, output = server.call("train", config, "--work-dir", folder / "run")
    assert code == 0, output
    assert "back to iteration 0" in output
    return config, folder / "run"


def test_rolling_back_recovers(rolled_back):
    run = rolled_back[1]
    (event,) = read_events(run)
    assert event["step"] == 0 and event["event"] == "not_finite" and event["found_at"] == 2
    assert [record["step"] for record in read_metrics(run)] == [2, 4, 6, 8, 10, 12]
    assert read_metrics(run)[-1]["train/student_lr"] == pytest.approx(0.01)
    assert json.loads((run / "provenance.json").read_text())["real_images_used_for_training"] is False


@pytest.mark.parametrize("rename", [6, *(pytest.param(at, marks=pytest.mark.soak) for at in (3, 4, 5, 7, 8, 9))])
def test_a_kill_around_the_return_changes_nothing(server, rolled_back, tmp_path, rename):
    # Renamed: config, provenance, iteration 0; after the return the metrics, iteration 0 again, iterations 5, 10, 12.
    config, reference = rolled_back
    run = tmp_path / "run"
    assert server.call("train", config, "--work-dir", run, kill_at_rename=rename)[0] == -signal.SIGKILL
    code, output = server.call("train", config, "--work-dir", run, "--resume")
    assert code == 0, output
    assert_equal_runs(run, reference)
    assert len(lines(run)) == 7
