"""A trained network as a file for others: one function per format, one table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dfad_seg.common.errors import InputError, choose
from dfad_seg.common.files import check_target, write_folder, write_whole
from dfad_seg.common.values import Kind, options, validated
from dfad_seg.exporting.base import DEFAULT_SIZE, Exported, Made, Program, Run, description
from dfad_seg.exporting.onnx_format import OnnxNetwork, export_int8, export_onnx
from dfad_seg.exporting.torch_formats import (
    export_safetensors,
    export_smp,
    export_torch_export,
    export_torchscript,
    export_transformers,
)
from dfad_seg.segmentors import Segmentor
from dfad_seg.segmentors.mmseg_source import require_mmseg
from dfad_seg.segmentors.programs import load_script


@options
class Weights:
    """Formats that hold the weights of a network that its reader builds: they have no options."""


@options
class InMMSegmentation:
    """Options of the format mmseg."""

    base: str | None = None
    """A config of MMSegmentation whose data sets, pipelines and metrics the written one takes over."""


def export_mmseg(options: InMMSegmentation, *, segmentor: Segmentor, described: dict[str, Any]) -> Made:
    """A config and a checkpoint for MMSegmentation, whose packages are imported here and not before."""
    require_mmseg()
    from dfad_seg.exporting import mmseg_format

    return mmseg_format.make(segmentor, options.base)


@dataclass(frozen=True)
class Format(Kind[Made]):
    """A line of the table.

    Attributes:
        name: of the file or folder, by default.
        load: what was written at work, images in [0, 1] → logits; None where that is the network's own code.
    """

    name: str = ""
    load: Callable[[Path], Run] | None = None

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder of files."""
        return "." not in self.name


FORMATS: dict[str, Format] = {
    "onnx": Format(Program, export_onnx, "student.onnx", OnnxNetwork),
    "torchscript": Format(Program, export_torchscript, "student.torchscript", load_script),
    "torch-export": Format(Program, export_torch_export, "student.pt2", lambda path: torch.export.load(path).module()),
    "safetensors": Format(Weights, export_safetensors, "student_safetensors"),
    "smp": Format(Weights, export_smp, "student_smp"),
    "transformers": Format(Weights, export_transformers, "student_transformers"),
    "mmseg": Format(InMMSegmentation, export_mmseg, "student_mmseg"),
}


def export(
    segmentor: Segmentor,
    path: str | Path,
    *,
    format: str = "onnx",
    origin: Mapping[str, Any] | None = None,
    **values: Any,
) -> Exported:
    """Write a segmentor in a format for others, whole, once it has been checked against the segmentor.

    Args:
        segmentor: as it is; a copy is exported, on the CPU.
        path: the file, or for safetensors, smp, transformers and mmseg the folder.
        format: onnx, torchscript, torch-export, safetensors, smp, transformers or mmseg.
        origin: plain values about where the network comes from, for the metadata.
        values: `dynamic` and `size` of the first three, `base` of mmseg; see `Program` and `InMMSegmentation`.

    Raises:
        InputError: unknown format or option, a missing package, a network that the format cannot hold, a path that
            cannot be written, or a file that answers otherwise than the segmentor; nothing is written then.
    """
    if not isinstance(segmentor, Segmentor):
        raise InputError(
            f"what is exported must be a Segmentor, not {type(segmentor).__name__}: it says the normalisation."
            " Wrap a plain network: Segmentor(network, num_classes=C, mean=..., std=...)."
        )
    chosen = choose(FORMATS, format, "export format")
    given = validated(chosen.options, values, f"export format {format}")
    check_target(path, folder=chosen.is_folder)
    fixed = segmentor.fixed_size
    if fixed is not None and isinstance(given, Program) and (given.dynamic or tuple(given.size) != fixed):
        height, width = fixed
        raise InputError(
            f"this network takes images of {height}x{width} only. Export one size (--no-dynamic --size H W): "
            f"--no-dynamic --size {height} {width}."
        )
    described = description(segmentor, origin or {})
    if isinstance(given, Program):
        described |= {"normalisation": "inside the file: it takes values in [0, 1]"}
    return write(chosen.build(given, segmentor=segmentor, described=described), path, format)


def write(made: Made, path: str | Path, format: str) -> Exported:
    """Write what a format made, whole."""
    content = made.content
    if isinstance(content, bytes):
        write_whole(path, lambda handle: handle.write(content))
        size = len(content)
    else:
        write_folder(path, content)
        size = sum(map(len, content.values()))
    return Exported(format, Path(path), size, made.checks, made.notes)
