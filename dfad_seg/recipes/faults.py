"""Faults of the machine, not of the program: said in one message, with what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dfad_seg.common.errors import FILES_ADVICE, InputError, machine_fault

_OUT_OF_MEMORY = re.compile(r"can't allocate memory|out of memory|not enough memory", re.IGNORECASE)
_TOO_MANY_FILES = re.compile(r"Too many open files|received 0 items of ancdata")
_AMOUNT = re.compile(r"[Tt]ried to allocate ([\d.]+) ?([KMGT]?i?[Bb](?:ytes)?)")


@contextmanager
def explained(*, batch: str, advice: str, then: str = "") -> Iterator[None]:
    """Turn faults of the machine inside the block into an `InputError`: memory, disk, open files.

    Args:
        batch: what was being computed, for the message about memory, such as `batch_size 8 at 96x128`.
        advice: what needs less memory.
        then: what to do once the fault is mended.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        message = _message(error, batch, advice)
        if message is None:
            raise
        raise InputError(f"{message}{then}") from error


def _message(error: Exception, batch: str, advice: str) -> str | None:
    text = str(error)
    if isinstance(error, OSError):
        return machine_fault(error)
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or _OUT_OF_MEMORY.search(text):
        amount = _AMOUNT.search(text)
        wanted = f", where {amount[1]} {amount[2]} more were needed" if amount else ""
        where = "GPU memory" if "CUDA" in text else "memory"
        return f"out of {where} with {batch}{wanted}. {advice}."
    if _TOO_MANY_FILES.search(text):
        return f"too many open files. {FILES_ADVICE}."
    return None
