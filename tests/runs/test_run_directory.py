"""Run directories: nothing overwritten, half-written, lost or doubled on resume; TensorBoard's files."""

import functools
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from samples import make_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from dfad_seg.common.errors import InputError
from dfad_seg.runs import Run, RunDirectory, checkpoints, note_evaluation, read_checkpoint
from dfad_seg.runs.checkpoints import FORMAT, newest_whole

CONFIG = "method: dfad\nseed: 0\n"


def state(iteration):
    return {"iteration": iteration, "networks": {"student": {"w": torch.full((2,), float(iteration))}}}


def start(path, config=CONFIG, steps=(), **options):
    run = RunDirectory.start(path, config, tensorboard=False, **options)
    for step in steps:
        run.log(step, {"train/loss": step / 10, "train/nan": math.nan})
        run.save_checkpoint(state(step))
    run.close()
    return path


def test_checkpoint_round_trip_and_only_the_newest_are_kept(tmp_path):
    kept = checkpoints(start(tmp_path / "run", steps=(10, 20, 300), keep_checkpoints=2))
    assert [p.name for p in kept] == ["iteration_00000020.pt", "iteration_00000300.pt"]
    assert torch.equal(read_checkpoint(kept[-1])["networks"]["student"]["w"], torch.tensor([300.0, 300.0]))


def test_work_dir_that_holds_something_is_not_touched(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty, and nothing in it was changed"):
        start(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
    start(tmp_path / "run")
    with pytest.raises(InputError, match="holds a run already.*--resume"):
        start(tmp_path / "run")
    with pytest.raises(InputError, match="is a file"):
        start(tmp_path / "notes.txt")


def test_resume_drops_what_will_be_measured_again(tmp_path):
    path = start(tmp_path / "run", steps=(10, 20, 30))
    with open(path / "metrics.jsonl", "a") as handle:
        handle.write('{"step": 40, "tra')  # a crash in the middle of a line
    resumed = RunDirectory.resume(path, f"{CONFIG}log_every: 5\n", step=20, tensorboard=False)
    assert len(checkpoints(path)) == 1
    resumed.log(30, {"train/loss": 9.0})
    resumed.close()
    records = Run(path).records
    assert [(r["step"], r["train/loss"]) for r in records] == [(10, 1.0), (20, 2.0), (30, 9.0)]
    assert records[0]["train/nan"] is None
    assert [r["elapsed_s"] for r in records] == sorted(r["elapsed_s"] for r in records)


def test_an_evaluation_that_is_still_owed_is_not_there_twice(tmp_path):
    run = RunDirectory.start(tmp_path / "run", CONFIG, tensorboard=False)
    run.log(10, {"train/student_loss": 1.0})
    run.note(10, {"event": "collapse", "cause": "x", "found_at": 10})
    run.log(10, {"val/mIoU": 0.5})  # made up for by a part of the run that was killed before it saved again
    run.close()
    for pending, left in ((False, ["loss", "event", "mIoU"]), (True, ["loss", "event"])):
        RunDirectory.resume(run.path, CONFIG, step=10, evaluation_pending=pending, tensorboard=False).close()
        lines = (run.path / "metrics.jsonl").read_text().splitlines()
        assert [next(word for word in ("loss", "event", "mIoU") if word in line) for line in lines] == left
    assert [event["event"] for event in Run(run.path).events] == ["collapse"]


FREE = """
device: cuda
dataset: {type: voc, root: elsewhere}
teacher: {source: saved, checkpoint: moved.pt}
training_data: {num_workers: 0}
evaluation: {batch_size: 1, num_workers: 0, split: val, every: 10}
precision: auto
"""


def test_what_messages_advise_may_change_and_the_experiment_may_not(tmp_path):
    config = CONFIG + FREE
    path = start(tmp_path / "run", config)
    for old, new, named in (
        ("split: val", "split: test", "evaluation.split"),
        ("type: voc", "type: camvid", "dataset.type"),
        ("seed: 0", "seed: 1", "seed"),
    ):
        with pytest.raises(InputError, match=f"another experiment: {named} differ"):
            RunDirectory.resume(path, config.replace(old, new), step=0, tensorboard=False)
    others = {"cuda": "cpu", "elsewhere": "here", "moved.pt": "back.pt", "num_workers: 0": "num_workers: 7"}
    others |= {"batch_size: 1": "batch_size: 8", "every: 10": "every: 20", "precision: auto": "precision: 32-true"}
    changed = functools.reduce(lambda text, change: text.replace(*change), others.items(), config)
    RunDirectory.resume(path, changed, step=0, tensorboard=False).close()
    with pytest.raises(InputError, match="no run to resume"):
        RunDirectory.resume(tmp_path / "nothing", config, step=0, tensorboard=False)


def test_a_flipped_bit_costs_the_way_back_to_the_checkpoint_before(tmp_path):
    older, newer = checkpoints(start(tmp_path / "run", steps=(10, 20)))
    damaged = bytearray(newer.read_bytes())
    damaged[damaged.index(torch.full((2,), 20.0).numpy().tobytes()) + 3] ^= 1  # an exponent's bit
    newer.write_bytes(damaged)
    with pytest.raises(InputError, match="the checksum of .* is another"):
        read_checkpoint(newer)
    found, faults = newest_whole(tmp_path / "run")
    assert found["iteration"] == 10 and len(faults) == 1 and newer.name in faults[0]
    older.write_bytes(b"")
    with pytest.raises(InputError, match="none of the checkpoints in .* is whole"):
        newest_whole(tmp_path / "run")
    assert newest_whole(tmp_path) == (None, [])


OTHERS = {"format": "x"}, {"version": "\x1b[31m99"}, {"iteration": True}, {"networks": []}, {"iteration": torch.ones(2)}


@pytest.mark.parametrize("change", OTHERS, ids=range(len(OTHERS)))
def test_other_files_and_versions_are_refused(tmp_path, change):
    torch.save({"format": FORMAT, "version": 1, "iteration": 1, "networks": {}} | change, tmp_path / "file.pt")
    with pytest.raises(InputError, match="no resumable checkpoint of this version"):
        read_checkpoint(tmp_path / "file.pt")


def test_an_evaluation_of_the_runs_network_goes_into_its_summary(tmp_path):
    from dfad_seg.evaluation import metrics_from_confusion

    run, metrics = make_run(tmp_path / "run"), metrics_from_confusion(torch.eye(2, dtype=torch.int64), ("a", "b"))
    (run / "other.pt").write_bytes(b"")
    assert note_evaluation(run / "other.pt", metrics.to_dict(), split="test", command="") is None
    assert note_evaluation(run / "student.pt", metrics.to_dict(), split="test", command="c") == run
    assert note_evaluation(run / "student_as_cut.pt", metrics.to_dict(), split="other", command="c") == run
    assert Run(run).score("student", split="test").mIoU == 1.0 and len(json.loads((run / "summary.json").read_text()))
    assert Run(run).score("student", split="other", weights="start").mIoU == 1.0


def test_a_folder_that_is_a_link_is_not_written_into(tmp_path):
    run, elsewhere = start(tmp_path / "run", steps=(10,)), tmp_path / "elsewhere"
    (run / "checkpoints").rename(elsewhere)
    (run / "checkpoints").symlink_to(elsewhere)
    with pytest.raises(InputError, match="is a link to another folder"):
        RunDirectory.resume(run, CONFIG, step=10, tensorboard=False)


def log_something(path, tensorboard=True):
    run = RunDirectory.start(path, CONFIG, tensorboard=tensorboard)
    run.log(1, {"train/loss": 0.5, "train/odd": float("nan")})
    run.log(2, {"val/IoU/a|b": 0.25})
    picture = path / "picture.png"
    Image.fromarray(np.full((4, 6, 3), (255, 0, 0), np.uint8)).save(picture)
    run.tensorboard.picture("generated", 2, picture)
    run.close()


def test_tensorboard_has_scalars_and_pictures(tmp_path):
    log_something(tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 0.5)]
    assert "train/odd" not in events.Tags()["scalars"]
    image = events.Images("generated")[0]
    assert (image.step, image.width, image.height) == (2, 6, 4)


def test_a_failing_log_costs_a_warning_only(tmp_path, monkeypatch, capsys):
    def broken(*_, **__):
        raise ConnectionError("disk\ngone")

    monkeypatch.setattr(SummaryWriter, "add_scalar", broken)
    log_something(tmp_path / "run")
    warning = "warning: TensorBoard's log failed, and gets nothing more of this run: disk gone\n"
    assert capsys.readouterr().err == warning
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2
