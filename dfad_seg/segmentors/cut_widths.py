"""Which channels of a network belong together, and what they cost: the widths that a cut may change."""

import copy
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from dfad_seg.common.errors import InputError, explained, quiet
from dfad_seg.common.modules import hooked
from dfad_seg.segmentors.base import Segmentor
from dfad_seg.segmentors.cost import count_flops, count_parameters
from dfad_seg.segmentors.cut_narrow import MATRICES, Costs, Member, Width, dropped_rows, layers_of, narrow, same_width
from dfad_seg.segmentors.kinds import pad_to_stride
from dfad_seg.segmentors.optimize import is_opaque

_RESHAPE = 14
"""Torch-Pruning's `ops.OPTYPE.RESHAPE`, which is imported late."""
_LARGEST = 4000
"""Sides of layers in a group of it; a UNet++ on a DenseNet has 107. Maps out of tokens, as in DPT, make it go on."""


def find_widths(segmentor: Segmentor, image_size: tuple[int, int]) -> tuple[list[Width], Costs]:
    """The widths that a cut may change, by Torch-Pruning's dependency graph (Fang et al. 2023), and the costs.

    Left out are the classes, and channels that a layer touches which cannot be made narrower without changing what it
    computes (group convolutions, the heads of attention, normalisation over channels) or that is used several times.
    """
    if is_opaque(segmentor):
        raise InputError(
            "this network has no Python layers whose channels could be dropped (TorchScript, torch.export). Cut the"
            " network that it was made from, or take another student."
        )
    traced = copy.deepcopy(segmentor.network).cpu().float().eval().requires_grad_(True)
    image = torch.rand(1, segmentor.in_channels, *image_size, generator=torch.Generator().manual_seed(0))
    example = pad_to_stride(image, segmentor.stride, segmentor.smallest)
    calls, positions = _watch(traced, example)
    names = {module: name for name, module in traced.named_modules()}
    several = {m for m, count in calls.items() if count > 1} | _shared(traced)
    widths: list[Width] = []
    for group in _groups(segmentor, traced, example):
        found = _widths(group, traced, names, several)
        reshaped = any(dependency.target.type == _RESHAPE for dependency, _ in group)
        widths += [width for width in found if not reshaped or _drops_exactly(segmentor, traced, example, width)]
    places = {name: place for place, name in enumerate(names.values())}
    widths.sort(key=lambda width: places[width.name.split("#")[0]])
    if not widths:
        raise InputError(
            "no channel of this network can be dropped: all of them pass through layers that need their number (group"
            " convolutions, attention, the classes), or through several uses of one layer. Take another student."
        )
    return widths, _costs(segmentor, traced, image_size, positions, widths)


def _watch(network: nn.Module, example: Tensor) -> tuple[Counter[nn.Module], dict[str, int]]:
    """How often each layer is used, and its output positions per image."""
    calls: Counter[nn.Module] = Counter()
    positions: dict[str, int] = {}

    def record(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls[module] += 1
        per_channel = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
        count = output[..., 0].numel() if isinstance(module, nn.Linear) else per_channel[0, 0].numel()
        positions[name] = positions.get(name, 0) + count

    with torch.no_grad(), hooked(layers_of(network), after=record):
        network(example)
    return calls, positions


def _shared(network: nn.Module) -> set[nn.Module]:
    """Layers that share a parameter with another one."""
    owners: dict[nn.Parameter, set[nn.Module]] = {}
    for module in network.modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(parameter, set()).add(module)
    return {module for group in owners.values() if len(group) > 1 for module in group}


def _groups(segmentor: Segmentor, traced: nn.Module, example: Tensor) -> list:
    # Imported here: it takes a second, and only cutting needs it.
    what = "Torch-Pruning cannot follow the channels of this network"
    with quiet(), explained(what, "Take another student."):
        import torch_pruning.dependency.graph as building

        class Bounded(building.Group):
            def add_dep(self, *dependency: Any, **more: Any) -> None:
                if len(self) > _LARGEST:
                    raise ValueError("channels that go together are found without end")
                super().add_dep(*dependency, **more)

        usual, building.Group = building.Group, Bounded
        try:
            graph = building.DependencyGraph()
            # All answers: an auxiliary classifier, whose logits nobody uses, reads channels as well.
            graph.build_dependency(
                traced, example, verbose=False,
                forward_fn=lambda net, x: [out for out in tree_leaves(net(x)) if getattr(out, "grad_fn", None)],
            )  # fmt: skip
            return list(graph.get_all_groups(root_module_types=list(MATRICES)))
        finally:
            building.Group = usual


def _widths(group: list, network: nn.Module, names: dict[nn.Module, str], several: set[nn.Module]) -> list[Width]:
    """A group of Torch-Pruning as widths; none if it has to keep its channels."""
    from torch_pruning import ops

    members: dict[tuple[str, str], Member] = {}
    for index in range(len(group)):
        dependency, rows = group[index]
        module, kind = dependency.target.module, dependency.target.type
        if kind in (ops.OPTYPE.ELEMENTWISE, ops.OPTYPE.CONCAT, _RESHAPE):
            continue
        if not _resizable(module) or module in several:
            return []
        # Layers that are as wide in front as behind have one function for both sides.
        side = "in" if dependency.handler.__name__ == "prune_in_channels" and not same_width(module) else "out"
        if max(rows) >= getattr(dependency.handler.__self__, f"get_{side}_channels")(module):
            return []  # one map that is multiplied with every channel
        chosen, of = torch.tensor(rows).sort()
        members.setdefault(
            (names[module], side), Member(names[module], side, chosen, torch.tensor(group[index].root_idxs)[of])
        )
    # Channels that are made in different places, and meet only where they are concatenated, go independently.
    size = len(group[0].idxs)
    makers = [m for m in members.values() if m.side == "out" and not same_width(network.get_submodule(m.layer))]
    makers.sort(key=lambda m: list(names.values()).index(m.layer))
    made = torch.zeros(size, len(makers), dtype=torch.bool)
    for column, member in enumerate(makers):
        made[member.of, column] = True
    kinds, kind_of = made.unique(dim=0, return_inverse=True)
    found: list[Width] = []
    for number, by in enumerate(kinds):
        channels = (kind_of == number).nonzero().flatten()
        place = torch.full((size,), -1)
        place[channels] = torch.arange(len(channels))
        parts = []
        for member in members.values():
            inside = place[member.of] >= 0
            if inside.any():
                parts.append(Member(member.layer, member.side, member.rows[inside], place[member.of][inside]))
        if len(channels) > 1 and by.any() and any(part.side == "in" for part in parts):
            name = makers[int(by.nonzero()[0])].layer
            taken = sum(width.name.split("#")[0] == name for width in found)
            found.append(Width(name + (f"#{taken + 1}" if taken else ""), len(channels), tuple(parts)))
    return found


def _drops_exactly(segmentor: Segmentor, network: nn.Module, example: Tensor, width: Width) -> bool:
    """Whether channels that nobody reads can be dropped: a reshape may put channels apart (the heads of attention)."""
    tried, images = copy.deepcopy(network).double(), example.double()
    with torch.no_grad():
        for member in width.side("in"):
            layer = tried.get_submodule(member.layer)
            assert isinstance(layer.weight, Tensor)
            gone = member.rows[member.of % 2 == 0]
            layer.weight.index_fill_(int(not isinstance(layer, nn.ConvTranspose2d)), gone, 0)
        before = segmentor.take_logits(tried(images), 1)
        narrow(tried, dropped_rows([width], {width.name: torch.arange(1, width.size, 2)}))
        try:
            after = segmentor.take_logits(tried(images), 1)
        except Exception:  # whatever layers raise whose channels do not go together
            return False
    return torch.allclose(before, after, rtol=1e-9, atol=1e-9 * float(before.abs().max()))


def _resizable(module: object) -> bool:
    if isinstance(module, nn.Conv2d):
        return module.groups == 1 or module.groups == module.in_channels == module.out_channels
    if isinstance(module, nn.ConvTranspose2d):
        return module.groups == 1
    return isinstance(module, (nn.Linear, nn.BatchNorm2d))


def _costs(
    segmentor: Segmentor, traced: nn.Module, image_size: tuple[int, int], positions: dict[str, int], widths: list[Width]
) -> Costs:
    shapes = {}
    for name, module in traced.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            shapes[name] = (module.num_features, 0, 0, 2 if module.affine else 0)
        elif isinstance(module, MATRICES):
            weight = module.weight
            outputs, inputs = weight.shape[:2] if not isinstance(module, nn.ConvTranspose2d) else weight.shape[1::-1]
            depthwise = same_width(module) and inputs == 1
            taps = weight.numel() // (outputs * inputs)
            shapes[name] = (outputs, 0 if depthwise else inputs, taps, 0 if module.bias is None else 1)
    costs = Costs(positions, shapes)
    for width in widths:
        costs.loss[width.name] = [(m.layer, m.side, len(m.rows) / width.size) for m in width.members]
    macs, parameters = costs.total({})
    costs.fixed_macs = max(0, round(count_flops(segmentor, image_size) / 2 - macs))
    costs.fixed_parameters = round(count_parameters(segmentor.network) - parameters)
    return costs
