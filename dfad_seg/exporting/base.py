"""What the export formats share: options, the program of torch.export, and the check against the segmentor."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from dfad_seg.common.errors import InputError, explained, quiet
from dfad_seg.common.labels import labels_of
from dfad_seg.common.values import Size, options
from dfad_seg.segmentors import Segmentor, exportable, is_opaque, state_hash
from dfad_seg.segmentors.optimize import TOLERANCE

SMALLEST_SIDE = 32
LARGEST_SIDE = 8192
"""The image sides, in pixels, that files of dynamic size are made for."""
LARGEST_BATCH = 4096

DEFAULT_SIZE = (256, 256)
DESCRIPTION_FILE = "segmentor.json"

Run = Callable[[Tensor], Tensor]
"""A loaded file at work: images (N, K, H, W) in [0, 1] → logits (N, C, H, W), or (N, 1, H, W) of a mask."""


@options
class Program:
    """Options of the formats that hold a program: onnx, torchscript, torch-export."""

    dynamic: bool = True
    """Any batch and image size; otherwise `size` alone, one image at a time."""
    size: Size = DEFAULT_SIZE
    """[height, width] in pixels of the images: the only ones, or those that are checked first."""

    def __post_init__(self) -> None:
        if not all(SMALLEST_SIDE <= side <= LARGEST_SIDE for side in self.size):
            raise ValueError(
                f"size is {self.size[0]}x{self.size[1]}; both sides must be {SMALLEST_SIDE} to {LARGEST_SIDE} pixels."
            )


@dataclass(frozen=True)
class Check:
    """The answers of what is written against the segmentor's, on images of one shape.

    Attributes:
        max_difference, largest_logit: magnitudes; the latter is the segmentor's, to judge the former by.
        agreement: share of pixels with the same class, in [0, 1].
    """

    batch: int
    height: int
    width: int
    max_difference: float
    largest_logit: float
    agreement: float

    def __str__(self) -> str:
        return (
            f"{self.batch} x {self.height}x{self.width}: max difference {self.max_difference:.1e}"
            f" (logits up to {self.largest_logit:.1f}), same class on {100 * self.agreement:.3f} % of pixels"
        )


class Made(NamedTuple):
    """What a format made, in memory: nothing is written before it is checked."""

    content: bytes | Mapping[str, bytes]
    """A file, or the files of a folder by name."""
    checks: tuple[Check, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Exported:
    """What was written, to a file or a folder, and what was checked.

    There are no checks against the segmentor where the format holds weights, which were compared bit by bit. Each note
    is a sentence.
    """

    format: str
    path: Path
    num_bytes: int
    checks: tuple[Check, ...] = ()
    notes: tuple[str, ...] = ()

    def report(self) -> str:
        """Some lines of text."""
        lines = [f"{self.format}: {self.path} ({self.num_bytes / 1e6:.2f} MB)"]
        return "\n".join([*lines, *(f"  {check}" for check in self.checks), *(f"  {note}" for note in self.notes)])


def compare(format: str, segmentor: Segmentor, run: Run, options: Program) -> tuple[Check, ...]:
    """Check a loaded file on seeded random images of several shapes, or of `options.size` alone if it is not dynamic.

    Raises:
        InputError: it fails, or answers otherwise than the segmentor, by more than `TOLERANCE`.
    """
    height, width = options.size
    shapes = [(1, height, width)]
    if options.dynamic:  # odd sizes among them, which need padding
        other = (max(33, height * 3 // 4 + 1), max(33, width // 2 + 3))
        shapes = [(1, max(33, height), max(33, width)), (3, *other), (2, 33, 64)]
    checks = []
    for batch, *size in shapes:
        images = torch.rand(batch, segmentor.in_channels, *size, generator=torch.Generator().manual_seed(0))
        where = f"on {batch} x {size[0]}x{size[1]} pixels, so it was not kept"
        with explained(f"the {format} file fails {where}", advice(options)):
            check = check_images(segmentor, run, images)
        if not check.max_difference <= TOLERANCE * max(check.largest_logit, 1e-6):
            raise InputError(
                f"the {format} file answers otherwise than the network ({check}), so it was not kept. {advice(options)}"
            )
        checks.append(check)
    return tuple(checks)


def advice(options: Program) -> str:
    """What to do where a network cannot be written so."""
    return ("Export one size (--no-dynamic --size H W), or use" if options.dynamic else "Use") + " another format."


def check_images(segmentor: Segmentor, run: Run, images: Tensor) -> Check:
    """Compare a loaded file with the segmentor on images (N, K, H, W) in [0, 1], both in evaluation mode on the CPU."""
    reference = exportable(segmentor, dynamic=False).segmentor
    with torch.no_grad():
        expected, found = reference(images), reference.class_logits(run(images))
    if found.shape != expected.shape:
        raise InputError(f"the exported network answers {tuple(found.shape)} where {tuple(expected.shape)} is needed.")
    return Check(
        batch=len(images),
        height=images.shape[-2],
        width=images.shape[-1],
        max_difference=float((found - expected).abs().max()),
        largest_logit=float(expected.abs().max()),
        agreement=float((labels_of(found) == labels_of(expected)).double().mean()),
    )


def description(segmentor: Segmentor, origin: Mapping[str, Any]) -> dict[str, Any]:
    """What a user of the file has to know, as plain values: input, classes, colours, normalisation, origin."""
    kind, mask = "RGB images" if segmentor.in_channels == 3 else "images", segmentor.out_channels == 1
    return {
        "input": f"{kind} (N, {segmentor.in_channels}, H, W), float32, values in [0, 1]",
        "output": f"logit (N, 1, H, W), float32; class 1 where its sigmoid is above {segmentor.threshold:g}"
        if mask
        else "logits (N, C, H, W), float32; argmax over C gives the class",
        "num_classes": segmentor.num_classes,
        "classes": list(segmentor.classes) if segmentor.classes is not None else None,
        "palette": [list(colour) for colour in segmentor.palette] if segmentor.palette is not None else None,
        "preprocessing": segmentor.preprocessing(),
        "threshold": segmentor.threshold if mask else None,
        "state_sha256": state_hash(segmentor),
        **origin,
    }


def as_properties(described: Mapping[str, Any]) -> dict[str, str]:
    """`description` as the text pairs that file formats hold: text as it is, other values as JSON."""
    return {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in described.items()
        if value is not None
    }


def as_json(value: Any) -> bytes:
    """Indented JSON, as the files of a folder hold it."""
    return (json.dumps(value, indent=2) + "\n").encode()


def as_program(segmentor: Segmentor, options: Program, *, guarded: bool) -> ExportedProgram:
    """A segmentor as one graph of tensor operations, without the paths of the code that it comes from.

    Args:
        guarded: whether the program checks its input's shape by the conditions that torch found on the way. A
            program that runs by itself needs them to be none; one that is translated further does not have them.
    """
    if is_opaque(segmentor):
        raise InputError(
            "this network is a TorchScript or torch.export file, without the Python code that exporting needs."
            " The format torchscript can wrap it."
        )
    module = exportable(segmentor, dynamic=options.dynamic, gather_crop=options.dynamic and guarded)
    if options.dynamic:
        _pool_by_products(module)
    # Sizes that differ, and are no multiples of anything: torch takes equal ones for always equal.
    height, width = (side + offset for side, offset in zip(options.size, (3, 14), strict=True))
    channels = segmentor.in_channels
    shape = (2, channels, height, width) if options.dynamic else (1, channels, *options.size)
    dynamic = _dimensions(guarded) if options.dynamic else None
    with explained("torch.export cannot follow this network", advice(options)), quiet():
        program = torch.export.export(module, (torch.zeros(shape),), dynamic_shapes=dynamic)
    for graph in program.graph_module.modules():
        for node in graph.graph.nodes if isinstance(graph, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)
    return program


def _dimensions(guarded: bool) -> tuple[dict[int, Any]]:
    if not guarded:
        return ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
    # Not 32 itself: at a stride of 32, the feature map of one pixel is a case of its own, which torch would forbid.
    sides = (Dim(name, min=SMALLEST_SIDE + 1, max=LARGEST_SIDE) for name in ("height", "width"))
    return ({0: Dim("batch", min=1, max=LARGEST_BATCH)} | dict(zip((2, 3), sides, strict=True)),)


def _pool_by_products(module: nn.Module) -> None:
    """Pyramid pooling for any size: torch.export takes the cells of an adaptive pooling for those of one size."""
    for child in module.modules():
        if isinstance(child, nn.AdaptiveAvgPool2d) and child.output_size not in (1, (1, 1)):
            child.__class__ = PoolByProducts  # in place: networks of transformers keep such layers in lists as well


class PoolByProducts(nn.AdaptiveAvgPool2d):
    """As two products with matrices of averages: cell i of n holds ⌊i·H/n⌋ to ⌈(i+1)·H/n⌉ - 1."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, *cells)."""
        cells: Any = self.output_size if isinstance(self.output_size, tuple) else (self.output_size,) * 2
        rows, columns = (self._averages(n, side, x) for n, side in zip(cells, x.shape[-2:], strict=True))
        return rows @ x @ columns.mT

    @staticmethod
    def _averages(cells: int | None, side: int, x: Tensor) -> Tensor:
        place = torch.arange(side, device=x.device)
        if cells is None:  # as many as there are pixels
            return (place[:, None] == place).to(x.dtype)
        cell = torch.arange(cells, device=x.device)[:, None]
        inside = ((place >= cell * side // cells) & (place < ((cell + 1) * side + cells - 1) // cells)).to(x.dtype)
        return inside / inside.sum(dim=1, keepdim=True)
