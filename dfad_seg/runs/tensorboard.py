"""A run's metrics, pictures and settings as TensorBoard's event files. A log that fails never costs the run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dfad_seg.common.errors import printable

Value = str | float | int | bool


class TensorBoard:
    """Event files in `tensorboard/` of a run directory; those after `step` are hidden.

    Args:
        settings: of the run, as `flat` gives them.
        metric: by which runs are compared, or None.
    """

    def __init__(self, run: Path, step: int, settings: Mapping[str, Value], metric: str | None) -> None:
        self._writer: Any = None
        self._try(lambda: self._open(run, step, settings, metric))

    def _open(self, run: Path, step: int, settings: Mapping[str, Value], metric: str | None) -> None:
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)
        # Not `add_hparams`, which would write into a sub-folder, as a second run.
        for event in hparams(dict(settings), {metric: 0.0} if metric else {}):
            self._writer._get_file_writer().add_summary(event)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers by name."""
        for name, value in values.items():
            self._try(lambda name=name, value=value: self._writer.add_scalar(name, value, step))  # type: ignore[misc]

    def picture(self, name: str, step: int, picture: np.ndarray) -> None:
        """uint8 (H, W, 3)."""
        self._try(lambda: self._writer.add_image(name, picture, step, dataformats="HWC"))

    def close(self) -> None:
        """Write what is left."""
        self._try(lambda: self._writer.close())

    def _try(self, act: Callable[[], object]) -> None:
        if self._writer is False:
            return
        try:
            act()
        except Exception as error:
            self._writer = False
            reason = printable(" ".join(str(error).split()) or type(error).__name__)
            print(f"warning: TensorBoard's log failed, and gets nothing more of this run: {reason}", file=sys.stderr)


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
