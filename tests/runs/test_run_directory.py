"""Run directories: nothing overwritten, nothing half-written, nothing lost or doubled on resume."""

import json
import math

import pytest
import torch

from dfad_seg.common.errors import InputError
from dfad_seg.common.files import write_text, write_whole
from dfad_seg.runs import RunDirectory, checkpoints, read_checkpoint, read_events, read_metrics


def state(iteration):
    return {"iteration": iteration, "networks": {"student": {"w": torch.full((2,), float(iteration))}}}


def test_checkpoint_round_trip_and_only_the_newest_are_kept(tmp_path):
    run = RunDirectory.start(tmp_path / "run", "method: dfad\nseed: 0\n", keep_checkpoints=2)
    for i in (10, 20, 300):
        run.save_checkpoint(state(i))
    run.close()
    kept = checkpoints(tmp_path / "run")
    assert [p.name for p in kept] == ["iteration_00000020.pt", "iteration_00000300.pt"]
    assert torch.equal(read_checkpoint(kept[-1])["networks"]["student"]["w"], torch.tensor([300.0, 300.0]))


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    target = tmp_path / "checkpoint.pt"
    write_text(target, "old")

    def half(handle):
        handle.write(b"new, but")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_whole(target, half)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_work_dir_that_holds_something_is_not_touched(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty, and nothing in it was changed"):
        RunDirectory.start(tmp_path, "method: dfad\nseed: 0\n")
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
    RunDirectory.start(tmp_path / "run", "method: dfad\nseed: 0\n").close()
    with pytest.raises(InputError, match="holds a run already.*--resume"):
        RunDirectory.start(tmp_path / "run", "method: dfad\nseed: 0\n")
    with pytest.raises(InputError, match="is a file"):
        RunDirectory.start(tmp_path / "notes.txt", "method: dfad\nseed: 0\n")


def test_resume_drops_what_will_be_measured_again(tmp_path):
    run = RunDirectory.start(tmp_path / "run", "method: dfad\nseed: 0\n")
    for step in (10, 20, 30):
        run.log(step, {"train/loss": step / 10, "train/nan": math.nan})
    run.close()
    with open(tmp_path / "run" / "metrics.jsonl", "a") as handle:
        handle.write('{"step": 40, "tra')  # a crash in the middle of a line
    assert [r["step"] for r in read_metrics(tmp_path / "run")] == [10, 20, 30]
    resumed = RunDirectory.resume(tmp_path / "run", "method: dfad\nseed: 0\nlog_every: 5\n", step=20)
    resumed.log(30, {"train/loss": 9.0})
    resumed.close()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [(r["step"], r["train/loss"]) for r in lines] == [(10, 1.0), (20, 2.0), (30, 9.0)]
    assert lines[0]["train/nan"] is None
    elapsed = [r["elapsed_s"] for r in lines]
    assert elapsed == sorted(elapsed)


def test_resume_refuses_another_experiment(tmp_path):
    RunDirectory.start(tmp_path / "run", "method: dfad\nseed: 0\niterations: 5\n").close()
    with pytest.raises(InputError, match="another experiment: iterations, seed differ"):
        RunDirectory.resume(tmp_path / "run", "method: dfad\nseed: 1\niterations: 6\n", step=0)
    with pytest.raises(InputError, match="no run to resume"):
        RunDirectory.resume(tmp_path / "nothing", "method: dfad\nseed: 1\n", step=0)


def test_discard_removes_everything(tmp_path):
    run = RunDirectory.start(tmp_path / "run", "method: dfad\nseed: 0\n")
    run.log(1, {"train/loss": 1.0})
    run.discard()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 broken zip"])
def test_damaged_checkpoints_are_refused(tmp_path, content):
    path = tmp_path / "iteration_00000001.pt"
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged, cut off, or no checkpoint|is no checkpoint|is empty"):
        read_checkpoint(path)


def test_other_files_and_versions_are_refused(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "student.pt")
    with pytest.raises(InputError, match="not a resumable checkpoint"):
        read_checkpoint(tmp_path / "student.pt")
    torch.save({"format": "dfad_seg/checkpoint", "version": 99}, tmp_path / "new.pt")
    with pytest.raises(InputError, match="version 99"):
        read_checkpoint(tmp_path / "new.pt")
    with pytest.raises(InputError, match="does not exist"):
        read_checkpoint(tmp_path / "absent.pt")


def test_a_pickle_with_code_does_not_run(tmp_path):
    import os
    import pickle

    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    path = tmp_path / "iteration_00000001.pt"
    path.write_bytes(pickle.dumps(Attack()))
    with pytest.raises(InputError):
        read_checkpoint(path)
    torch.save({"format": Attack()}, path)
    with pytest.raises(InputError):
        read_checkpoint(path)
    assert not (tmp_path / "owned").exists()


def test_an_evaluation_that_is_still_owed_is_not_there_twice(tmp_path):
    run = RunDirectory.start(tmp_path / "run", "method: dfad\nseed: 1\n")
    run.log(10, {"train/student_loss": 1.0})
    run.note(10, {"event": "collapse", "cause": "x", "found_at": 10})
    run.log(10, {"val/mIoU": 0.5})  # made up for by a part of the run that was killed before it saved again
    run.close()
    for pending, left in ((False, ["loss", "event", "mIoU"]), (True, ["loss", "event"])):
        RunDirectory.resume(tmp_path / "run", "method: dfad\nseed: 1\n", step=10, evaluation_pending=pending).close()
        lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
        assert [next(word for word in ("loss", "event", "mIoU") if word in line) for line in lines] == left
    assert [event["event"] for event in read_events(tmp_path / "run")] == ["collapse"]


def test_what_a_start_that_was_killed_left_is_no_obstacle_and_goes(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / ".config.yaml.x1.tmp").write_text("seed")
    started = RunDirectory.start(run, "method: dfad\nseed: 1\n")
    started.close()
    assert not [path.name for path in run.iterdir() if path.name.startswith(".") or path.name == "run.lock"]
