"""Runs that diverge, through the tool: exit codes, the network that is left, and what the run directory says."""

import torch
from harness import tiny_config

from dfad_seg.runs import Run, checkpoints, read_checkpoint
from dfad_seg.segmentors import load_segmentor


def test_stopping_leaves_a_usable_student(server, tmp_path, tiny_scenes):
    # Two good iterations; then the rates rise beyond what weights can follow.
    optimizer, schedule = {"type": "sgd", "lr": 0.01}, {"type": "step", "every": 2, "gamma": 1e32}
    changes = {"iterations": 4, "student_optimizer": optimizer, "schedule": schedule, "save_every": 1, "log_every": 1}
    config, run = tiny_config(tmp_path, tiny_scenes, **changes, ema_decay=...), tmp_path / "run"
    code, output = server.call("train", config, "--work-dir", run)
    assert code == 3 and "Traceback" not in output, output
    assert "training diverged" in output and "set clip_norm" in output
    assert not (run / "student.pt").exists(), "nobody may take it for a finished run"
    kept, state = load_segmentor(run / "last_good_student.pt", trust=True), read_checkpoint(checkpoints(run)[-1])
    assert state["iteration"] == 2
    saved = state["networks"]["student"]
    assert all(torch.equal(value, saved[name]) for name, value in kept.state_dict().items())
    event = Run(run).events[-1]
    assert event["event"] == "not_finite" and event["found_at"] == 3
    assert not any("event" in record for record in Run(run).records)
