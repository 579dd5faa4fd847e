"""COCO's run-length encodings, checked before pycocotools sees them: it trusts the runs, and writes where they say."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from dfad_seg.common.errors import InputError, printable


def checked(segmentation: Mapping[str, Any], size: tuple[int, int], where: str) -> dict[str, Any]:
    """A segmentation `{"size": [H, W], "counts": text or list}` as pycocotools takes it.

    Args:
        size: (height, width) of its image.
        where: it stands, for messages.

    Raises:
        InputError: another size, or runs that do not cover its pixels exactly.
    """
    if segmentation.get("size") != list(size):  # equal also where they are floats
        raise InputError(
            f"{where} has a run-length encoding of size {printable(repr(segmentation.get('size')), 40)} (height, "
            f"width), but its image has {list(size)}."
        )
    counts, pixels = segmentation.get("counts"), math.prod(size)
    if isinstance(counts, str):
        runs, stored = decode_counts(counts), counts.encode("ascii", "replace")
    else:
        found = numbers(counts, where, "run-length encoding")
        whole = (found == np.round(found)) & (abs(found) <= pixels)  # also false for what is no number
        runs = stored = found.astype(np.int64) if whole.all() else None  # type: ignore[assignment]
    if runs is None or (runs < 0).any() or int(runs.sum()) != pixels:
        raise InputError(f"{where} has a run-length encoding that does not cover the {pixels} pixels of its image.")
    return {"size": list(size), "counts": stored}


def numbers(values: Any, where: str, kind: str) -> np.ndarray:
    """A list of numbers as an array (n,); `InputError` for anything else."""
    try:
        found = np.array(values) if isinstance(values, list) else None
    except (ValueError, OverflowError):
        found = None
    if found is None or found.ndim != 1 or (found.size and found.dtype.kind not in "if"):
        raise InputError(f"{where} has a {kind} that is not a list of numbers.")
    return found


def decode_counts(text: str) -> np.ndarray | None:
    """The run lengths in the text form of COCO's compressed run-length encoding, int64; None if it is malformed.

    The form (`maskApi.c`, `rleFrString`): each number in groups of five bits, lowest first, one per character (code
    minus 48), bit 5 set where another group follows, bit 4 of the last group the sign; from the fourth number on
    the difference to the number two before.
    """
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64) - 48
    if not codes.size or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return None
    last = np.flatnonzero((codes & 32) == 0)
    first = np.concatenate(([0], last[:-1] + 1))
    length = last - first + 1
    if length.max() > 7:  # 35 bits: more than any image needs, and within int64
        return None
    place = np.arange(codes.size) - np.repeat(first, length)
    values = np.add.reduceat((codes & 31) << 5 * place, first)
    values -= np.where(codes[last] & 16, np.int64(1) << 5 * length, 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
