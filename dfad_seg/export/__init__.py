"""A trained network as a file for others: one function per format, one table."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from dfad_seg.common.errors import InputError, choose
from dfad_seg.export.base import DEFAULT_SIZE, Check, Exported, ExportOptions, Run
from dfad_seg.export.int8 import export_int8
from dfad_seg.export.onnx_format import OnnxNetwork, export_onnx
from dfad_seg.export.smp_format import export_smp
from dfad_seg.export.torch_formats import export_safetensors, export_torch_export, export_torchscript
from dfad_seg.segmentors import Segmentor

__all__ = [
    "DEFAULT_SIZE",
    "FORMATS",
    "Check",
    "ExportOptions",
    "Exported",
    "Format",
    "OnnxNetwork",
    "Run",
    "export",
    "export_int8",
]

Write = Callable[[Segmentor, Path, ExportOptions], Exported]

# Optional, and above this layer: nothing depends on it, and it is looked for when somebody asks for it.
_MMSEG = "dfad_seg.integrations.mmseg.export"


def export_mmseg(segmentor: Segmentor, path: Path, options: ExportOptions) -> Exported:
    """A folder that MMSegmentation loads, written by the optional integration.

    Raises:
        InputError: MMSegmentation or the integration is not installed, or it cannot represent the network.
    """
    if importlib.util.find_spec("mmseg") is None:
        raise InputError("format mmseg needs MMSegmentation, which is not installed. See docs/mmseg.md.")
    try:
        module = importlib.import_module(_MMSEG)
    except ModuleNotFoundError as error:
        raise InputError(f"format mmseg needs {error.name}, which this installation does not have.") from None
    module.export_mmseg(segmentor, path, base=options.base, palette=options.palette)
    return Exported("mmseg", path, (), ("init_model(config, checkpoint) of mmseg.apis loads it",))


def load_torchscript(path: Path) -> Run:
    """A TorchScript file of ours at work."""
    return torch.jit.load(str(path), map_location="cpu")


def load_torch_export(path: Path) -> Run:
    """A torch.export file of ours at work."""
    return torch.export.load(str(path)).module()


@dataclass(frozen=True)
class Format:
    """A line of the table.

    Attributes:
        write: how it is written and checked.
        name: of the file or folder, by default.
        load: what was written at work, images in [0, 1] → logits; None where that is the network's own code.
    """

    write: Write
    name: str
    load: Callable[[Path], Run] | None = None


FORMATS: dict[str, Format] = {
    "onnx": Format(export_onnx, "student.onnx", OnnxNetwork),
    "torchscript": Format(export_torchscript, "student.torchscript", load_torchscript),
    "torch-export": Format(export_torch_export, "student.pt2", load_torch_export),
    "safetensors": Format(export_safetensors, "student_safetensors"),
    "smp": Format(export_smp, "student_smp"),
    "mmseg": Format(export_mmseg, "student_mmseg"),
}


def export(
    segmentor: Segmentor, path: str | Path, *, format: str = "onnx", options: ExportOptions | None = None
) -> Exported:
    """Write a segmentor in a format for others, whole, and check what was written against it.

    Args:
        segmentor: as it is; a copy is exported, on the CPU.
        path: the file, or for safetensors, smp and mmseg the folder.
        format: onnx, torchscript, torch-export, safetensors, smp or mmseg.
        options: dynamic or fixed size, metadata.

    Raises:
        InputError: unknown format, a missing package, a network that the format cannot hold, or a file that
            answers otherwise than the segmentor; nothing is left behind then.
    """
    if not isinstance(segmentor, Segmentor):
        raise InputError(
            f"what is exported must be a Segmentor, not {type(segmentor).__name__}: it says the normalisation."
            " Wrap a plain network: Segmentor(network, num_classes=C, mean=..., std=...)."
        )
    chosen = choose(FORMATS, format, "export format")
    return chosen.write(segmentor, Path(path), options or ExportOptions())
