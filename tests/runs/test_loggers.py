"""TensorBoard, MLflow and Weights & Biases: what was logged is read back from what they wrote."""

import importlib.util
import json
import sys
import types

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dfad_seg.common.errors import InputError
from dfad_seg.runs import RunDirectory, loggers

CONFIG = "method: dfad\niterations: 4\nstudent_optimizer: {lr: 0.1}\nevaluation: {split: val}\nimage_size: [32, 48]\n"


def log_something(path, names):
    run = RunDirectory.start(path, CONFIG, loggers=names)
    run.log(1, {"train/loss": 0.5, "train/odd": float("nan")})
    run.log(2, {"val/IoU/a|b": 0.25})
    picture = path / "picture.png"
    Image.fromarray(np.full((4, 6, 3), (255, 0, 0), np.uint8)).save(picture)
    run.log_picture("generated", 2, picture)
    run.close()


def test_tensorboard_has_scalars_pictures_and_settings(tmp_path):
    log_something(tmp_path / "run", ["tensorboard"])
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 0.5)]
    assert "train/odd" not in events.Tags()["scalars"]
    image = events.Images("generated")[0]
    assert (image.step, image.width, image.height) == (2, 6, 4)
    start = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"student_optimizer.lr" in start and b"dfad" in start and b"[32, 48]" in start
    assert b"val/mIoU" in events.SummaryMetadata("_hparams_/experiment").plugin_data.content
    # One run, and no sub-folder that would show as a second one.
    assert [path.name for path in (tmp_path / "run" / "tensorboard").iterdir() if path.is_dir()] == []


def test_mlflow_keeps_a_local_store_and_goes_on_in_it(tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="needs mlflow: pip install '.[mlflow]'")
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    log_something(tmp_path / "run", ["mlflow"])
    resumed = RunDirectory.resume(tmp_path / "run", CONFIG, step=1, loggers=["mlflow"])
    resumed.log(3, {"train/loss": 0.125})
    resumed.close()
    client = MlflowClient(tracking_uri=(tmp_path / "run" / "mlflow").as_uri())
    [run] = client.search_runs([client.get_experiment_by_name("dfad_seg").experiment_id])
    assert json.loads((tmp_path / "run" / "loggers.json").read_text()) == {"mlflow": run.info.run_id}
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.5), (3, 0.125)]
    assert run.data.metrics["val/IoU/a_b"] == 0.25
    assert run.data.params["student_optimizer.lr"] == "0.1"
    assert run.info.status == "FINISHED"
    assert [file.path for file in client.list_artifacts(run.info.run_id, "images") if file.path.endswith(".png")]


def test_weights_and_biases_by_its_interface(tmp_path, monkeypatch):
    """Against a stand-in for the package: that the calls are made, not what the service does with them."""
    calls = []

    class Run:
        config = types.SimpleNamespace(update=lambda values, **_: calls.append(("config", values)))

        def log(self, values, step):
            calls.append(("log", values, step))

        def finish(self):
            calls.append(("finish",))

    def init(**options):
        calls.append(("init", options))
        return Run()

    fake = types.ModuleType("wandb")
    fake.__spec__ = importlib.util.spec_from_loader("wandb", None)
    fake.init, fake.Settings, fake.Image = init, dict, lambda pixels: ("image", pixels.shape)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    log_something(tmp_path / "run", ["wandb"])
    assert calls[0][1]["mode"] == "offline" and calls[0][1]["resume"] == "allow"
    assert calls[0][1]["id"] == json.loads((tmp_path / "run" / "loggers.json").read_text())["wandb"]
    assert calls[1][1]["image_size"] == "[32, 48]"
    assert calls[2:] == [
        ("log", {"train/loss": 0.5}, 1),
        ("log", {"val/IoU/a|b": 0.25}, 2),
        ("log", {"generated": ("image", (4, 6, 3))}, 2),
        ("finish",),
    ]


def test_a_failing_service_costs_a_warning_only(tmp_path, monkeypatch, capsys):
    class Broken:
        identity = "x"

        def __init__(self, run, identity, step):
            pass

        def settings(self, values, metrics):
            pass

        def scalars(self, step, values):
            raise ConnectionError("server\ngone")

    monkeypatch.setitem(loggers.KINDS, "mlflow", ("mlflow", Broken))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    log_something(tmp_path / "run", ["mlflow", "tensorboard"])
    warning = "warning: mlflow failed, and gets nothing more of this run: server gone\n"
    assert capsys.readouterr().err == warning
    assert EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload().Scalars("train/loss")
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_missing_package_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs a package that is not installed.*pip install 'dfad-seg\[mlflow\]'"):
        RunDirectory.start(tmp_path / "run", CONFIG, loggers=["mlflow"])
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="Known: tensorboard, mlflow, wandb"):
        loggers.check_loggers(["comet"])


def test_no_logger_at_all(tmp_path):
    log_something(tmp_path / "run", [])
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.yaml", "metrics.jsonl", "picture.png"}
