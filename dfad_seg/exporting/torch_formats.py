"""Formats `torchscript`, `torch-export`, `safetensors` and `smp`, made and read back before they are written."""

from __future__ import annotations

import io
import json
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dfad_seg.common.errors import InputError
from dfad_seg.exporting.base import (
    DESCRIPTION_FILE,
    Made,
    Program,
    Weights,
    as_json,
    as_properties,
    compare,
    reason,
)
from dfad_seg.exporting.program import exported_program
from dfad_seg.segmentors import WEIGHT_OPTIONS, Segmentor, exportable


def export_torchscript(options: Program, *, segmentor: Segmentor, described: dict[str, Any]) -> Made:
    """A traced TorchScript file for `torch.jit.load`, in Python or C++; the description is its extra file.

    Raises:
        InputError: the network cannot be traced, or the file answers otherwise.
    """
    module = exportable(segmentor, dynamic=False)
    height, width = options.size
    example = torch.zeros(2, 3, height + 3, width + 5) if options.dynamic else torch.zeros(1, 3, height, width)
    written = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and shape checks are no part of the trace
        try:
            with torch.no_grad():
                traced = torch.jit.trace(module, example, check_trace=False)
            torch.jit.save(traced, written, _extra_files={DESCRIPTION_FILE: json.dumps(described)})
        except Exception as error:  # whatever the network's operations raise under tracing
            message = f"torch.jit.trace cannot follow this network ({reason(error)}). Use another format."
            raise InputError(message) from error
        content = _without_sources(written.getvalue())
        checks = compare("TorchScript", segmentor, torch.jit.load(io.BytesIO(content)), options)
    return Made(content, checks, (f"torch.jit.load(path); its extra file is {DESCRIPTION_FILE}",))


def _without_sources(archive: bytes) -> bytes:
    """A TorchScript file without its records of where in whose Python files each operation stands."""
    reader, written = torch._C.PyTorchFileReader(io.BytesIO(archive)), io.BytesIO()
    writer = torch._C.PyTorchFileWriter(written)
    for name in reader.get_all_records():
        if not name.endswith(".debug_pkl") and name not in ("version", "byteorder", ".data/serialization_id"):
            record = reader.get_record(name)
            writer.write_record(name, record, len(record))
    writer.write_end_of_file()
    return written.getvalue()


def export_torch_export(options: Program, *, segmentor: Segmentor, described: dict[str, Any]) -> Made:
    """A .pt2 file for `torch.export.load(path).module()`; the description is its extra file.

    Raises:
        InputError: torch cannot follow the network, or the file answers otherwise.
    """
    program = exported_program(segmentor, options, guarded=True)
    written = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, written, extra_files={DESCRIPTION_FILE: json.dumps(described)})
        loaded = torch.export.load(io.BytesIO(written.getvalue())).module()
        checks = compare("torch.export", segmentor, loaded, options)
    return Made(written.getvalue(), checks, ("torch.export.load(path).module()",))


def export_safetensors(options: Weights, *, segmentor: Segmentor, described: dict[str, Any]) -> Made:
    """A folder of `model.safetensors`, the network's weights, and `segmentor.json`: how to rebuild the network.

    `build_segmentor(**json["spec"], checkpoint="…/model.safetensors")` gives it back.

    Raises:
        InputError: the segmentor does not know how it was built.
    """
    from safetensors.torch import load, save

    if segmentor.spec is None:
        raise InputError("this segmentor was built by hand and has no spec that could rebuild it. Use another format.")
    spec = {name: value for name, value in segmentor.spec.items() if name not in (*WEIGHT_OPTIONS, "classes")}
    if not (spec["source"] == "factory" and "mean" not in spec):
        spec |= segmentor.preprocessing()
    # The format refuses tensors that share memory.
    state = {key: value.detach().cpu().contiguous().clone() for key, value in segmentor.network_state_dict().items()}
    content = save(state, metadata=as_properties(described))
    if not _equal(load(content), state):
        raise InputError("what safetensors wrote reads otherwise. Check the memory, and write it again.")
    files = {"model.safetensors": content, DESCRIPTION_FILE: as_json(described | {"spec": spec})}
    return Made(files, (), (f"{len(state)} tensors, read back equal bit by bit",))


def export_smp(options: Weights, *, segmentor: Segmentor, described: dict[str, Any]) -> Made:
    """smp's own folder for `segmentation_models_pytorch.from_pretrained`, and `segmentor.json`.

    smp's network takes normalised images of multiples of its stride; `segmentor.json` says both.

    Raises:
        InputError: the network is none of smp's.
    """
    network = segmentor.network
    save = getattr(network, "save_pretrained", None)
    if save is None or not type(network).__module__.startswith("segmentation_models_pytorch."):
        raise InputError(
            f"format smp needs a network of segmentation_models_pytorch, and this is a {type(network).__name__}."
            " Use another format."
        )
    if segmentor.spec is not None and segmentor.spec["source"] == "cut":
        raise InputError(
            "format smp cannot hold a network that was cut: smp.from_pretrained builds it with all of its channels."
            " Use another format."
        )
    copied: Any = exportable(segmentor, dynamic=False).segmentor.network
    with tempfile.TemporaryDirectory() as folder:
        copied.save_pretrained(folder)
        config = Path(folder) / "config.json"
        # The weights are in the folder: loading it must not fetch the encoder's.
        config.write_bytes(as_json(json.loads(config.read_text(encoding="utf-8")) | {"encoder_weights": None}))
        if not _equal(type(copied).from_pretrained(folder).state_dict(), copied.state_dict()):
            raise InputError("smp reads its folder otherwise than it was written. Use another format.")
        files = {file.name: file.read_bytes() for file in sorted(Path(folder).iterdir())}
    preprocessing = segmentor.preprocessing()
    notes = (
        f"{len(copied.state_dict())} tensors, loaded by smp and equal bit by bit",
        f"the network itself takes (image * {preprocessing['input_scale']:g} - mean) / std, channel order"
        f" {preprocessing['channel_order']}, sides in multiples of {preprocessing['stride']}: see {DESCRIPTION_FILE}",
    )
    return Made(files | {DESCRIPTION_FILE: as_json(described)}, (), notes)


def _equal(found: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> bool:
    return found.keys() == state.keys() and all(torch.equal(found[key], value) for key, value in state.items())
