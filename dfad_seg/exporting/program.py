"""torch.export of a segmentor, which the formats `onnx` and `torch-export` begin with."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from dfad_seg.common.errors import InputError, explained, quiet
from dfad_seg.exporting.base import LARGEST_SIDE, SMALLEST_SIDE, Program, advice
from dfad_seg.segmentors import Segmentor, exportable, is_opaque

LARGEST_BATCH = 4096


def exported_program(segmentor: Segmentor, options: Program, *, guarded: bool) -> ExportedProgram:
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
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d) and child.output_size not in (1, (1, 1)):
                setattr(parent, name, PoolByProducts(child.output_size))


class PoolByProducts(nn.Module):
    """`AdaptiveAvgPool2d` as two products with matrices of averages: cell i of n holds ⌊i·H/n⌋ to ⌈(i+1)·H/n⌉ - 1."""

    def __init__(self, cells: Any) -> None:
        super().__init__()
        self.cells = (cells, cells) if isinstance(cells, int) else tuple(cells)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, *cells)."""
        rows, columns = (self._averages(n, side, x) for n, side in zip(self.cells, x.shape[-2:], strict=True))
        return rows @ x @ columns.mT

    @staticmethod
    def _averages(cells: int | None, side: int, x: Tensor) -> Tensor:
        place = torch.arange(side, device=x.device)
        if cells is None:  # as many as there are pixels
            return (place[:, None] == place).to(x.dtype)
        cell = torch.arange(cells, device=x.device)[:, None]
        inside = ((place >= cell * side // cells) & (place < ((cell + 1) * side + cells - 1) // cells)).to(x.dtype)
        return inside / inside.sum(dim=1, keepdim=True)
