"""Formats `torchscript`, `torch-export` and `safetensors`."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dfad_seg.common.errors import InputError
from dfad_seg.common.files import write_json
from dfad_seg.export.base import (
    Exported,
    ExportOptions,
    as_properties,
    compare,
    description,
    file_whole,
    folder_whole,
)
from dfad_seg.export.program import exported_program
from dfad_seg.segmentors import WEIGHT_OPTIONS, Segmentor, exportable

DESCRIPTION_FILE = "segmentor.json"


def export_torchscript(segmentor: Segmentor, path: Path, options: ExportOptions) -> Exported:
    """A traced TorchScript file for `torch.jit.load`, in Python or C++; the description is its extra file.

    Raises:
        InputError: the network cannot be traced, or the file answers otherwise.
    """
    module = exportable(segmentor, dynamic=False)
    height, width = options.size
    example = torch.zeros(2, 3, height + 3, width + 5) if options.dynamic else torch.zeros(1, 3, height, width)
    extra = {DESCRIPTION_FILE: json.dumps(description(segmentor, options))}
    with warnings.catch_warnings(), file_whole(path) as temporary:
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and shape checks are no part of the trace
        try:
            with torch.no_grad():
                traced = torch.jit.trace(module, example, check_trace=False)
            torch.jit.save(traced, str(temporary), _extra_files=extra)
        except Exception as error:  # whatever the network's operations raise under tracing
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
            raise InputError(f"torch.jit.trace cannot follow this network ({reason}). Use another format.") from error
        loaded = torch.jit.load(str(temporary))
        checks = compare("TorchScript", segmentor, loaded, options)
    return Exported("torchscript", path, checks, (f"torch.jit.load(path); its extra file is {DESCRIPTION_FILE}",))


def export_torch_export(segmentor: Segmentor, path: Path, options: ExportOptions) -> Exported:
    """A .pt2 file for `torch.export.load(path).module()`; the description is its extra file.

    Raises:
        InputError: torch cannot follow the network, or the file answers otherwise.
    """
    program = exported_program(segmentor, options, guarded=True)
    extra: dict[str, Any] = {DESCRIPTION_FILE: json.dumps(description(segmentor, options))}
    with warnings.catch_warnings(), file_whole(path) as temporary:
        warnings.simplefilter("ignore")
        torch.export.save(program, str(temporary), extra_files=extra)
        loaded = torch.export.load(str(temporary)).module()
        checks = compare("torch.export", segmentor, loaded, options)
    return Exported("torch-export", path, checks, ("torch.export.load(path).module()",))


def export_safetensors(segmentor: Segmentor, path: Path, options: ExportOptions) -> Exported:
    """A folder of `model.safetensors`, the network's weights, and `segmentor.json`: how to rebuild the network.

    `build_segmentor(**json["spec"], checkpoint="…/model.safetensors")` gives it back.

    Raises:
        InputError: the segmentor does not know how it was built.
    """
    from safetensors.torch import load_file, save_file

    if segmentor.spec is None:
        raise InputError("this segmentor was built by hand and has no spec that could rebuild it. Use another format.")
    spec = {name: value for name, value in segmentor.spec.items() if name not in (*WEIGHT_OPTIONS, "classes")}
    if not (spec["source"] == "factory" and "mean" not in spec):
        spec |= segmentor.preprocessing()
    state = {key: value.detach().cpu().contiguous() for key, value in segmentor.network_state_dict().items()}
    with folder_whole(path, ("model.safetensors", DESCRIPTION_FILE)) as temporary:
        metadata = as_properties(description(segmentor, options))
        save_file(_unshared(state), str(temporary / "model.safetensors"), metadata=metadata)
        write_json(temporary / DESCRIPTION_FILE, description(segmentor, options) | {"spec": spec})
        read = load_file(str(temporary / "model.safetensors"))
        if read.keys() != state.keys() or not all(torch.equal(read[key], value) for key, value in state.items()):
            raise InputError(f"what was written to {path} reads otherwise. Check the disk, and write it again.")
    return Exported("safetensors", path, (), (f"{len(state)} tensors, read back equal bit by bit",))


def _unshared(state: dict[str, Tensor]) -> dict[str, Tensor]:
    # The format refuses tensors that share memory.
    return {key: value.clone() for key, value in state.items()}
