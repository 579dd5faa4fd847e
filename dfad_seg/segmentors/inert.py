"""Reading training checkpoints of MMEngine without running anything that is in them."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

# What MMEngine's runner stores beside the weights: its log, as objects with NumPy arrays inside. `builtins.getattr` is
# how pickle names the methods that the log's class keeps in a table.
_LOGS = re.compile(
    r"mmengine\.logging\.history_buffer\.HistoryBuffer"
    r"|builtins\.getattr"
    r"|numpy\.(ndarray|dtype|dtypes\.\w+DType|(_?core)\.multiarray\.(_reconstruct|scalar))"
)


class Inert:
    """Stands for an object of a file: it takes whatever it is given and does nothing with it."""

    def __new__(cls, *_: Any, **__: Any) -> Inert:
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


@contextmanager
def inert_logs(path: str | Path) -> Iterator[None]:
    """Inside, `torch.load(path, weights_only=True)` reads MMEngine's log entries as `Inert` objects.

    The names in the file are never looked up. One that belongs to no log stays forbidden, and so does the file.
    """
    names = [name for name in _foreign_names(path) if _LOGS.fullmatch(name)]
    with torch.serialization.safe_globals([(Inert, name) for name in names]):
        yield


def _foreign_names(path: str | Path) -> list[str]:
    # Files of torch < 1.6 are no archives: they cannot be asked, and were written before MMEngine was.
    if not zipfile.is_zipfile(path):
        return []
    try:
        return torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except Exception:  # damaged, or TorchScript: whoever loads it says so
        return []
