"""Sources `torchscript` and `torch_export`: networks that come as a program, without their Python code."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dfad_seg.common.errors import TRUST_ADVICE, InputError, explained, instead_of, quiet
from dfad_seg.common.values import FileName, options
from dfad_seg.segmentors.kinds import Network, SourceOptions
from dfad_seg.segmentors.settling import settle


@options
class ProgramOptions(SourceOptions):
    """A TorchScript file (`torch.jit.save`), scripted or traced, frozen or not; or a `torch.export` file
    (`torch.export.save`). When it is opened it is tried: at several sizes, twice, in batches."""

    path: FileName
    """The file."""
    trust: bool = False
    """Must be true: such a file can do anything that you can do."""


def build_torchscript(chosen: ProgramOptions, *, num_classes: int) -> Network:
    """A network from a TorchScript file."""
    return _opened(chosen, "torchscript", "TorchScript", lambda path: ScriptedNetwork(_load_script(str(path))))


def build_torch_export(chosen: ProgramOptions, *, num_classes: int) -> Network:
    """A network from a `torch.export` file, exported in evaluation mode, with dynamic or fixed sizes."""
    return _opened(chosen, "torch_export", "torch.export", lambda path: ExportedNetwork(torch.export.load(path)))


def _opened(chosen: ProgramOptions, source: str, kind: str, load: Callable[[Path], nn.Module]) -> Network:
    path = Path(chosen.path)
    if not chosen.trust:
        raise InputError(
            f"segmentor source '{source}': {path} is a program, and it can do anything that you can do. {TRUST_ADVICE}"
        )
    if not path.is_file():
        raise InputError(f"segmentor source '{source}': {path} is no file.{instead_of(path)}")
    advice = "It is damaged, of another kind, or written by a later version of torch."
    with explained(f"{path} cannot be loaded as a {kind} file", advice):
        network = load(path)
    return Network(network, settle=lambda segmentor: settle(segmentor, f"the {kind} file {path}", chosen))


class ScriptedNetwork(nn.Module):
    """A TorchScript module that moves to another device as a whole."""

    def __init__(self, script: nn.Module) -> None:
        super().__init__()
        self.script = script
        self._device = torch.device("cpu")
        self.eval()

    def forward(self, images: Tensor) -> Any:
        return self.script(images)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ScriptedNetwork:
        super()._apply(fn, recurse)
        # A frozen module keeps its weights as constants, which `.to` leaves behind; loading moves them too.
        device = fn(torch.empty(0)).device
        if device != self._device:
            self.script, self._device = _reload(self.script, device), device
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> ScriptedNetwork:
        # TorchScript's own copies have parameters that are no leaves, so they could never be frozen.
        twin = ScriptedNetwork(_reload(self.script, self._device)).train(self.training)
        twin._device = self._device
        memo[id(self)] = twin
        return twin


class ExportedNetwork(nn.Module):
    """An exported program as a module, fixed in the mode of its export."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        super().__init__()
        self.accepts = _input_shape(program)
        self.program = program.module()
        _drop_assertions(self.program)
        self.train(False)

    def forward(self, images: Tensor) -> Any:
        return self.program(images)

    def train(self, mode: bool = True) -> ExportedNetwork:
        """No effect: the mode is fixed at export, and torch's own `train` and `eval` raise here."""
        for module in self.modules():
            module.training = False
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ExportedNetwork:
        super()._apply(fn, recurse)
        # Constants are plain attributes, which `nn.Module` leaves behind.
        for module in self.program.modules():
            for name, value in vars(module).items():
                if isinstance(value, Tensor):
                    setattr(module, name, fn(value))
        # Tensors that the program makes are made on the device of the export: write the new one there.
        device = fn(torch.empty(0)).device
        for node in self.program.graph.nodes:
            node.args = _replace_device(node.args, device)
            node.kwargs = _replace_device(node.kwargs, device)
        self.program.recompile()
        return self


def _load_script(file: Any, device: torch.device | str = "cpu") -> Any:
    with quiet():  # TorchScript is deprecated; the files remain
        return torch.jit.load(file, map_location=device)


def _reload(script: nn.Module, device: torch.device) -> nn.Module:
    buffer = io.BytesIO()
    with quiet():
        torch.jit.save(script, buffer)
    buffer.seek(0)
    loaded: nn.Module = _load_script(buffer, device)
    for parameter, old in zip(loaded.parameters(), script.parameters(), strict=True):
        parameter.requires_grad_(old.requires_grad)
    return loaded.train(script.training)


def _input_shape(program: torch.export.ExportedProgram) -> tuple[int | str, ...]:
    # Per dimension: the only size accepted, or the name (or expression) of a dynamic one.
    inputs = program.graph_signature.user_inputs
    shapes = [n.meta["val"].shape for n in program.graph.nodes if n.op == "placeholder" and n.name in inputs]
    if len(inputs) != 1 or len(shapes) != 1 or len(shapes[0]) != 4:
        raise InputError(f"the exported program has {len(inputs)} inputs; needed is one, of shape (N, K, H, W).")
    return tuple(size if isinstance(size, int) else str(size) for size in shapes[0])


def _replace_device(arguments: Any, device: torch.device) -> Any:
    return torch.fx.node.map_aggregate(arguments, lambda x: device if isinstance(x, torch.device) else x)


def _drop_assertions(program: torch.fx.GraphModule) -> None:
    # They pin the number type and device of the export, so they would fail under autocast and on a GPU.
    for node in list(program.graph.nodes):
        if str(node.target).startswith("aten._assert_tensor_metadata"):
            program.graph.erase_node(node)
    program.recompile()
