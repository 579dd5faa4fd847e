"""Networks of anybody's code: source `factory`, a Python callable that returns one; `torchscript` and `torch_export`,
programs that come without their Python code."""

import importlib
import io
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dfad_seg.common.errors import TRUST_ADVICE, InputError, explained, instead_of, nearest, quiet
from dfad_seg.common.modules import evaluating
from dfad_seg.common.values import FileName, options
from dfad_seg.segmentors.base import NetworkFailed, Segmentor
from dfad_seg.segmentors.kinds import Network, SourceOptions
from dfad_seg.segmentors.settling import find_sizes, settle


@options
class FactoryOptions(SourceOptions):
    """Any Python callable that returns a network, or a ready `Segmentor`. Importing and calling it runs its code."""

    factory: str
    """`package.module:callable`; modules in the current directory are found too."""
    kwargs: dict[str, Any] | None = None
    """Its keyword arguments. The class count is not passed on: put it here under the callable's own name for it."""


def build_factory(chosen: FactoryOptions, *, num_classes: int) -> Network | Segmentor:
    """A network from a Python callable."""
    factory, kwargs = chosen.factory, chosen.kwargs or {}
    module_name, colon, name = factory.partition(":")
    if not (module_name and colon and name):
        raise InputError(f"factory = {factory!r}: needed is 'package.module:callable'.")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    advice = "Install it, or run from the directory that holds it."
    with explained(f"factory {factory}: module '{module_name}' cannot be imported", advice):
        found: Any = importlib.import_module(module_name)
    for part in name.split("."):
        if not hasattr(found, part):
            known = [attribute for attribute in dir(found) if not attribute.startswith("_")]
            raise InputError(f"factory {factory}: '{module_name}' has no '{part}'.{nearest(part, known)}")
        found = getattr(found, part)
    if not callable(found):
        raise InputError(f"factory {factory} is a {type(found).__name__}, not a callable.")
    with explained(f"factory {factory} failed with kwargs {kwargs}"):
        network = found(**kwargs)
    if not isinstance(network, nn.Module):
        raise InputError(f"factory {factory} returned a {type(network).__name__}; a torch.nn.Module is needed.")
    return network if isinstance(network, Segmentor) else Network(network, settle=lambda made: try_out(made, chosen))


def try_out(segmentor: Segmentor, given: FactoryOptions) -> None:
    """Find the stride of a network, or refuse one whose answer is no logits; one of a single size is left alone."""
    with evaluating(segmentor), torch.no_grad(), torch.random.fork_rng(devices=[]), suppress(NetworkFailed):
        find_sizes(segmentor, "the network", given)


@options
class ProgramOptions(SourceOptions):
    """A TorchScript file (`torch.jit.save`), scripted or traced, frozen or not; or a `torch.export` file
    (`torch.export.save`). When it is opened it is tried: at several sizes, twice, in batches."""

    path: FileName
    """The file."""
    trust: bool = False
    """Must be true: such a file can do anything that you can do."""


def open_program(source: str, chosen: ProgramOptions, *, num_classes: int) -> Network:
    """A network from a TorchScript file, or from one of `torch.export`, exported in evaluation mode for any sizes."""
    path, scripted = Path(chosen.path), source == "torchscript"
    kind = "TorchScript" if scripted else "torch.export"
    if not chosen.trust:
        raise InputError(
            f"segmentor source '{source}': {path} is a program, and it can do anything that you can do. {TRUST_ADVICE}"
        )
    if not path.is_file():
        raise InputError(f"segmentor source '{source}': {path} is no file.{instead_of(path)}")
    advice = "It is damaged, of another kind, or written by a later version of torch."
    with quiet(logging.getLogger("torch.export")), explained(f"{path} cannot be loaded as a {kind} file", advice):
        network = ScriptedNetwork(load_script(str(path))) if scripted else ExportedNetwork(torch.export.load(path))
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

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ScriptedNetwork":
        super()._apply(fn, recurse)
        # A frozen module keeps its weights as constants, which `.to` leaves behind; loading moves them too.
        device = fn(torch.empty(0)).device
        if device != self._device:
            self.script, self._device = _reload(self.script, device), device
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "ScriptedNetwork":
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

    def train(self, mode: bool = True) -> "ExportedNetwork":
        """No effect: the mode is fixed at export, and torch's own `train` and `eval` raise here."""
        for module in self.modules():
            module.training = False
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ExportedNetwork":
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


def load_script(file: Any, device: torch.device | str = "cpu") -> Any:
    """A TorchScript module, without torch's word that the format is deprecated."""
    with quiet():
        return torch.jit.load(file, map_location=device)


def _reload(script: nn.Module, device: torch.device) -> nn.Module:
    buffer = io.BytesIO()
    with quiet():
        torch.jit.save(script, buffer)
    buffer.seek(0)
    loaded: nn.Module = load_script(buffer, device)
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
