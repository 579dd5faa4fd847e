"""Where a run's metrics go beside `metrics.jsonl`: TensorBoard, MLflow, Weights & Biases.

The latter two keep to the run directory unless their own environment variables name a server: `MLFLOW_TRACKING_URI`,
and `WANDB_MODE=online`. A service that fails costs a warning and the rest of its log, never the run.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams as hparams_events

from dfad_seg.common.errors import InputError, printable
from dfad_seg.common.files import write_json
from dfad_seg.common.reading import read_json

PROJECT = "dfad_seg"
LOGGERS = ("tensorboard",)
IDENTITIES = "loggers.json"
"""By logger, the name under which it knows this run, so that a resumed run goes on in the same place."""

Value = str | float | int | bool


class TensorBoard:
    """Event files in `tensorboard/`."""

    identity = None

    def __init__(self, run: Path, identity: str | None, step: int) -> None:
        # Events of a run that was killed after its last checkpoint are hidden from there on.
        self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def settings(self, values: Mapping[str, Value], metrics: Sequence[str]) -> None:
        # Not `add_hparams`, which would write into a sub-folder, as a second run.
        for event in hparams_events(dict(values), dict.fromkeys(metrics, 0.0)):
            self._writer._get_file_writer().add_summary(event)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, name: str, step: int, picture: np.ndarray) -> None:
        self._writer.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


class MLflow:
    """An MLflow run; in the folder `mlflow/` unless `MLFLOW_TRACKING_URI` says where."""

    def __init__(self, run: Path, identity: str | None, step: int) -> None:
        # MLflow has put its file store, which needs no server and no data base, behind this switch.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow.tracking import MlflowClient

        uri = os.environ.get("MLFLOW_TRACKING_URI") or (run.resolve() / "mlflow").as_uri()
        self._client: Any = MlflowClient(tracking_uri=uri)
        if identity is None:
            experiment = self._client.get_experiment_by_name(PROJECT)
            number = experiment.experiment_id if experiment else self._client.create_experiment(PROJECT)
            identity = self._client.create_run(number, run_name=run.resolve().name).info.run_id
        self.identity = identity

    def settings(self, values: Mapping[str, Value], metrics: Sequence[str]) -> None:
        for name, value in values.items():
            self._client.log_param(self.identity, _mlflow_name(name), value)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        batch = [Metric(_mlflow_name(name), value, now, step) for name, value in values.items()]
        self._client.log_batch(self.identity, metrics=batch)

    def picture(self, name: str, step: int, picture: np.ndarray) -> None:
        self._client.log_image(self.identity, picture, key=_mlflow_name(name), step=step)

    def close(self) -> None:
        self._client.set_terminated(self.identity)


class WeightsAndBiases:
    """A run of Weights & Biases; kept in the folder `wandb/` unless `WANDB_MODE` says otherwise."""

    def __init__(self, run: Path, identity: str | None, step: int) -> None:
        import wandb

        self._wandb: Any = wandb
        self.identity = identity or uuid.uuid4().hex[:16]
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.resolve().name,
            dir=str(run),
            id=self.identity,
            resume="allow",
            mode=os.environ.get("WANDB_MODE", "offline"),
            settings=wandb.Settings(console="off", silent=True),
        )

    def settings(self, values: Mapping[str, Value], metrics: Sequence[str]) -> None:
        self._run.config.update(dict(values), allow_val_change=True)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def picture(self, name: str, step: int, picture: np.ndarray) -> None:
        self._run.log({name: self._wandb.Image(picture)}, step=step)

    def close(self) -> None:
        self._run.finish()


KINDS: dict[str, tuple[str, Callable[[Path, str | None, int], Any]]] = {
    "tensorboard": ("tensorboard", TensorBoard),
    "mlflow": ("mlflow", MLflow),
    "wandb": ("wandb", WeightsAndBiases),
}
"""By name: the package, and what opens the log of a run directory, under the name that it had, after a step."""


class Logger:
    """A log whose failures end it and nothing else."""

    def __init__(self, name: str, run: Path, identity: str | None, step: int) -> None:
        self.name = name
        self.inner: Any = None
        self._try(lambda: setattr(self, "inner", KINDS[name][1](run, identity, step)))

    def tell(self, act: str, *values: Any) -> None:
        """Call a method of the log: `settings`, `scalars`, `picture` or `close`."""
        if self.inner is not None:
            self._try(lambda: getattr(self.inner, act)(*values))

    def _try(self, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as error:
            self.inner = None
            reason = printable(" ".join(str(error).split()) or type(error).__name__)
            print(f"warning: {self.name} failed, and gets nothing more of this run: {reason}", file=sys.stderr)


def check_loggers(names: Sequence[str]) -> None:
    """Whether the loggers can be used here.

    Raises:
        InputError: one is unknown, or its package is not installed.
    """
    for name in names:
        if name not in KINDS:
            raise InputError(f"loggers names '{name}'. Known: {', '.join(KINDS)}.")
        if importlib.util.find_spec(KINDS[name][0]) is None:
            raise InputError(
                f"the logger {name} needs a package that is not installed. Install it: pip install 'dfad-seg[{name}]', "
                f"or remove {name} from loggers."
            )


def open_loggers(run: Path, names: Sequence[str], *, step: int) -> list[Logger]:
    """The loggers of a run directory that is at `step`."""
    file = run / IDENTITIES
    kept = read_json(file, "the loggers' names", limit=4096) if file.exists() else {}
    known = {name: value for name, value in kept.items() if isinstance(value, str)} if isinstance(kept, dict) else {}
    loggers = [Logger(name, run, known.get(name), step) for name in dict.fromkeys(names)]
    found = {logger.name: logger.inner.identity for logger in loggers if getattr(logger.inner, "identity", None)}
    if found.items() - known.items():
        write_json(file, known | found)
    return loggers


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Value]:
    """A nested config as one level, with dots; what is neither text nor a number becomes text."""
    found: dict[str, Value] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found |= flat(value, f"{name}.")
        elif value is not None:
            found[name] = value if isinstance(value, (str, float, int, bool)) else json.dumps(value, default=str)
    return found


def _mlflow_name(name: str) -> str:
    """MLflow takes letters, digits and a few signs."""
    return re.sub(r"[^\w\-. :/]", "_", name)
