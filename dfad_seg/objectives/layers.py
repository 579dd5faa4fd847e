"""Looking inside a network: which layers it has at which output stride, and their features in a forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dfad_seg.common.errors import InputError, nearest

ACTIVATIONS = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Hardswish,
)
ENCODERS = ("encoder", "backbone")  # smp's and torchvision's names
STRIDES = (8, 16)


@dataclass
class WatchedLayer:
    """What one layer did in its last forward pass."""

    name: str
    before: Tensor
    """An activation's input; of any other layer, its output."""
    after: Tensor
    """The layer's output."""

    @property
    def channels(self) -> int:
        return self.before.shape[1]


@contextmanager
def watch_layers(network: nn.Module, names: Sequence[str]) -> Iterator[dict[str, WatchedLayer]]:
    """Within the block, forward passes of `network` fill the dictionary; the last call of a layer counts.

    Layers are looked up by name each time, so that networks may be moved, wrapped or copied meanwhile.
    """
    seen: dict[str, WatchedLayer] = {}
    inputs: dict[str, Tensor] = {}
    handles = []

    def before(name: str, layer: nn.Module, given: tuple) -> None:
        # An in-place activation would overwrite what was recorded.
        inputs[name] = given[0].clone() if getattr(layer, "inplace", False) else given[0]

    def after(name: str, layer: nn.Module, output: object) -> None:
        if isinstance(output, Tensor) and output.dim() >= 2:
            seen.pop(name, None)  # in the order of the last calls
            seen[name] = WatchedLayer(name, inputs.pop(name, output), output)

    try:
        for name in names:
            layer = network.get_submodule(name)
            if isinstance(layer, ACTIVATIONS):
                handles.append(layer.register_forward_pre_hook(lambda m, given, n=name: before(n, m, given)))
            handles.append(layer.register_forward_hook(lambda m, _, output, n=name: after(n, m, output)))
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def choose_layers(
    teacher: nn.Module,
    student: nn.Module,
    *,
    image_size: tuple[int, int],
    teacher_layers: Sequence[str] | None = None,
    student_layers: Sequence[str] | None = None,
) -> list[tuple[WatchedLayer, WatchedLayer]]:
    """Pairs of a teacher's and a student's layer whose features are to be compared, as seen in a probe.

    By default, for each output stride of 8 and 16 that both networks have, the last activation of their encoders
    at that stride; with no such stride in common, the last activation of the deepest stride of each. Of a network that
    keeps no `encoder` or `backbone` the whole is searched.

    Raises:
        InputError: names for one side only, or not as many for both; an unknown name; a layer without features
            (N, C, h, w); an opaque network, or one whose activations are no modules.
    """
    if teacher_layers is None or student_layers is None:
        if teacher_layers is not None or student_layers is not None:
            raise InputError("teacher_layers and student_layers go together: give both, or neither.")
        found = [_deepest_by_stride(n, role, image_size) for n, role in ((teacher, "teacher"), (student, "student"))]
        common = [stride for stride in STRIDES if stride in found[0] and stride in found[1]]
        if common:
            return [(found[0][stride], found[1][stride]) for stride in common]
        return [(found[0][max(found[0])], found[1][max(found[1])])]
    if len(teacher_layers) != len(student_layers) or not teacher_layers:
        raise InputError(
            f"teacher_layers names {len(teacher_layers)} and student_layers {len(student_layers)} layers; "
            "they are compared in pairs, so as many are needed on both sides, and at least one."
        )
    return list(
        zip(
            _named_layers(teacher, "teacher", teacher_layers, image_size),
            _named_layers(student, "student", student_layers, image_size),
            strict=True,
        )
    )


def _deepest_by_stride(network: nn.Module, role: str, image_size: tuple[int, int]) -> dict[int, WatchedLayer]:
    """The last activation layer of each output stride."""
    _refuse_opaque(network, role)
    names = [name for name, layer in network.named_modules() if isinstance(layer, ACTIVATIONS)]
    inside = [name for name in names if any(part in ENCODERS for part in name.split("."))]
    strides: dict[int, WatchedLayer] = {}
    for layer in _probe(network, inside or names, image_size).values():
        if layer.before.dim() == 4 and min(layer.before.shape[2:]) > 1:
            # In the order of the calls, so that the last one stays.
            strides[round(image_size[0] / layer.before.shape[2])] = layer
    if not strides:
        raise InputError(
            f"no layer of the {role} was found whose features could be compared: it has no activations that are "
            f"modules and see more than one position at image_size {image_size[0]}x{image_size[1]}. Name layers by "
            "teacher_layers and student_layers, or set activation_boundary and attention_transfer to 0."
        )
    return strides


def _named_layers(
    network: nn.Module, role: str, names: Sequence[str], image_size: tuple[int, int]
) -> list[WatchedLayer]:
    _refuse_opaque(network, role)
    known = {name.removeprefix("network."): name for name, _ in network.named_modules() if name}
    full = []
    for name in names:
        if name not in known and name not in known.values():
            raise InputError(f"{role}_layers: the {role} has no layer '{name}'.{nearest(name, known)}")
        full.append(known.get(name, name))
    seen = _probe(network, full, image_size)
    for name in full:
        if name not in seen or seen[name].before.dim() != 4:
            raise InputError(
                f"{role}_layers: the layer '{name}' gives no features (N, C, h, w) in the {role}'s forward pass. "
                "Name another one, such as a block or an activation of its encoder."
            )
    return [seen[name] for name in full]


def _refuse_opaque(network: nn.Module, role: str) -> None:
    scripted = any(isinstance(m, torch.jit.ScriptModule) for m in network.modules())
    if scripted or not any(isinstance(m, (nn.Conv2d, nn.Linear)) for m in network.modules()):
        raise InputError(
            f"activation_boundary and attention_transfer need the hidden features of the {role}, and this one is "
            "opaque (TorchScript, torch.export). Set both to 0, or load it from its Python class."
        )


@torch.no_grad()
def _probe(network: nn.Module, names: Sequence[str], image_size: tuple[int, int]) -> dict[str, WatchedLayer]:
    """The layers' features of one grey image, in the order of their calls; the network is left as it was."""
    modes = {module: module.training for module in network.modules()}
    parameter = next(network.parameters())
    try:
        network.eval()
        with watch_layers(network, names) as seen:
            network(torch.full((1, 3, *image_size), 0.5, device=parameter.device))
    finally:
        for module, mode in modes.items():
            module.training = mode
    return seen
