"""torch.export of a segmentor, which the formats `onnx` and `torch-export` begin with."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from dfad_seg.common.errors import InputError
from dfad_seg.export.base import LARGEST_SIDE, SMALLEST_SIDE, ExportOptions
from dfad_seg.segmentors import Segmentor, exportable, is_opaque

LARGEST_BATCH = 4096


def exported_program(segmentor: Segmentor, options: ExportOptions, *, guarded: bool) -> ExportedProgram:
    """A segmentor as one graph of tensor operations.

    Args:
        guarded: whether the program checks its input's shape by the conditions that torch found on the way. A
            program that runs by itself needs them to be none; one that is translated further does not have them.

    Raises:
        InputError: the network has no Python code, or torch cannot follow it (at any size).
    """
    if is_opaque(segmentor):
        raise InputError(
            "this network is a TorchScript or torch.export file, without the Python code that exporting needs."
            " The format torchscript can wrap it."
        )
    module = exportable(segmentor, dynamic=options.dynamic, gather_crop=options.dynamic and guarded)
    # Sizes that differ, and are no multiples of anything: torch takes equal ones for always equal.
    height, width = (side + offset for side, offset in zip(options.size, (3, 14), strict=True))
    shape = (2, 3, height, width) if options.dynamic else (1, 3, *options.size)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.export(
                module,
                (torch.zeros(shape),),
                dynamic_shapes=_dimensions(guarded) if options.dynamic else None,
            )
    except Exception as error:  # whatever the network's operations raise under tracing
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
        do = (
            " Export one size (--no-dynamic --size H W), or use the format torchscript."
            if options.dynamic
            else " Use the format torchscript."
        )
        raise InputError(f"torch.export cannot follow this network ({reason}).{do}") from error


def _dimensions(guarded: bool) -> tuple[dict[int, Any]]:
    if not guarded:
        return ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
    # Not 32 itself: at a stride of 32, the feature map of one pixel is a case of its own, which torch would forbid.
    sides = (Dim(name, min=SMALLEST_SIDE + 1, max=LARGEST_SIDE) for name in ("height", "width"))
    return ({0: Dim("batch", min=1, max=LARGEST_BATCH)} | dict(zip((2, 3), sides, strict=True)),)
