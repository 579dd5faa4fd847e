"""A run's metrics and pictures as TensorBoard's event files. A log that fails never costs the run."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dfad_seg.common.errors import printable


class TensorBoard:
    """Event files in `tensorboard/` of a run directory, if they are wanted; those after `step` are hidden."""

    def __init__(self, run: Path, step: int, *, wanted: bool) -> None:
        self._writer: Any = None if wanted else False
        self._try(lambda: self._open(run, step))

    def _open(self, run: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers by name."""
        self._try(lambda: [self._writer.add_scalar(name, value, step) for name, value in values.items()])

    def picture(self, name: str, step: int, file: Path) -> None:
        """A PNG of the run."""

        def add() -> None:
            with Image.open(file, formats=["PNG"]) as opened:
                self._writer.add_image(name, np.asarray(opened.convert("RGB")), step, dataformats="HWC")

        self._try(add)

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
