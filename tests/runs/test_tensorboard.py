"""TensorBoard's files: what was logged is read back from them."""

import numpy as np
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from dfad_seg.runs import RunDirectory

CONFIG = "method: dfad\n"


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
