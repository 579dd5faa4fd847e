"""Channels that go together, what they cost, how many of them go, and a network that loses them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from dfad_seg.common.errors import InputError

MATRICES = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
"""Layers with a weight matrix per position: those that produce and read channels."""

TOLERANCE = 0.03
"""By how much of itself a budget may be missed."""

Rows = dict[str, Tensor]
"""Per layer and side (`"name:out"` or `"name:in"`), indices of channels, (n,), ascending."""


@dataclass(frozen=True)
class Member:
    """One side of a layer in a width: its channels, and for each the channel of the width that it goes with."""

    layer: str
    side: str
    """`out` or `in`."""
    rows: Tensor
    of: Tensor


@dataclass(frozen=True)
class Width:
    """Channels that can only be dropped together: where they are made, normalised and read."""

    name: str
    """Of the layer that makes them; the first one, where several are summed."""
    size: int
    members: tuple[Member, ...]

    def side(self, side: str) -> list[Member]:
        return [member for member in self.members if member.side == side]


@dataclass(frozen=True)
class Price:
    """Of dropping a width's channels: how many at a time, in which order, and at what cost in all."""

    order: Tensor
    """Channels, the first to go first."""
    counts: tuple[int, ...]
    """Numbers of channels to drop, from 0 up."""
    costs: tuple[float, ...]
    """Of dropping so many."""


@dataclass
class Costs:
    """Multiply-accumulates of one image and parameters, as functions of how many channels each width loses."""

    positions: dict[str, int]
    """Output positions of each layer at the image size in question."""
    shapes: dict[str, tuple[int, int, int, int]]
    """(outputs, inputs, taps of the kernel, extra parameters per output) by layer; inputs 0: depthwise."""
    fixed_macs: int = 0
    fixed_parameters: int = 0
    loss: dict[str, list[tuple[str, str, float]]] = field(default_factory=dict)
    """Per width: (layer, side, channels that the layer loses per channel of the width)."""

    def layer(self, name: str, lost: Mapping[tuple[str, str], float]) -> tuple[float, float]:
        """(MACs, parameters) of a layer."""
        all_outputs, all_inputs, taps, extra = self.shapes[name]
        outputs = all_outputs - lost.get((name, "out"), 0)
        inputs = all_inputs - lost.get((name, "in"), 0) if all_inputs else 1
        weights = outputs * inputs * taps
        return weights * self.positions.get(name, 0), weights + outputs * extra

    def total(self, drops: Mapping[str, int]) -> tuple[float, float]:
        """(MACs, parameters) of the network when each named width loses so many channels."""
        lost = self.lost(drops)
        parts = [self.layer(name, lost) for name in self.shapes]
        return self.fixed_macs + sum(p[0] for p in parts), self.fixed_parameters + sum(p[1] for p in parts)

    def by_part(self, drops: Mapping[str, int]) -> dict[str, float]:
        """MACs by part of the network: the first of its modules' names in which layers differ."""
        lost = self.lost(drops)
        columns = zip(*(name.split(".") for name in self.shapes), strict=False)
        depth = next((d for d, names in enumerate(columns) if len(set(names)) > 1), 0)
        found: dict[str, float] = {}
        for name in self.shapes:
            part = name.split(".")[depth]
            found[part] = found.get(part, 0) + self.layer(name, lost)[0]
        return found

    def lost(self, drops: Mapping[str, int]) -> dict[tuple[str, str], float]:
        """How many channels each side of a layer loses."""
        found: dict[tuple[str, str], float] = {}
        for width, count in drops.items():
            for name, side, each in self.loss[width]:
                found[name, side] = found.get((name, side), 0) + each * count
        return found


def layers_of(network: nn.Module) -> dict[str, nn.Module]:
    """The layers that produce, normalise or read channels, by name."""
    return {name: m for name, m in network.named_modules() if isinstance(m, (*MATRICES, nn.BatchNorm2d))}


def same_width(module: nn.Module) -> bool:
    """Whether a layer takes each channel for itself: BatchNorm, depthwise convolutions."""
    return isinstance(module, nn.BatchNorm2d) or (isinstance(module, nn.Conv2d) and module.groups > 1)


def dropped_rows(widths: Sequence[Width], kept: Mapping[str, Tensor]) -> Rows:
    """Per layer and side that loses channels, which ones go, given the channels that stay of each named width."""
    gone: dict[str, list[Tensor]] = {}
    for width in widths:
        for member in width.members if width.name in kept else ():
            lost = member.rows[~torch.isin(member.of, kept[width.name])]
            if len(lost):
                gone.setdefault(f"{member.layer}:{member.side}", []).append(lost)
    return {key: torch.cat(parts) for key, parts in gone.items()}


def narrow(network: nn.Module, gone: Rows) -> Rows:
    """Drop channels from a network's layers, in place. Returns those that stay, per layer and side."""
    rows: Rows = {}
    layers = dict(network.named_modules())
    for key, dropped in gone.items():
        name, side = key.rsplit(":", 1)
        layer = layers[name]
        count = channels(layer)[0 if side == "out" else 1]
        stays = torch.ones(count, dtype=torch.bool)
        stays[dropped] = False
        rows[key] = stays.nonzero().flatten()
        _select(layer, side, rows[key])
    return rows


def channels(layer: nn.Module) -> tuple[int, int]:
    """(outputs, inputs) of a layer."""
    if isinstance(layer, nn.BatchNorm2d):
        return layer.num_features, layer.num_features
    if isinstance(layer, nn.Linear):
        return layer.out_features, layer.in_features
    assert isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))
    return layer.out_channels, layer.in_channels


def _select(layer: nn.Module, side: str, rows: Tensor) -> None:
    if isinstance(layer, nn.BatchNorm2d):
        axes = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), 0)
        counts = ["num_features"]
    else:
        axes = {"weight": int((side == "out") == isinstance(layer, nn.ConvTranspose2d))}
        axes |= {"bias": 0} if side == "out" else {}
        counts = [f"{side}_features" if isinstance(layer, nn.Linear) else f"{side}_channels"]
        counts += ["in_channels", "groups"] if same_width(layer) else []
    for name, axis in axes.items():
        old = getattr(layer, name)
        if old is not None:
            new = old.detach().index_select(axis, rows.to(old.device))
            setattr(layer, name, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)
    for name in counts:
        setattr(layer, name, len(rows))


def find_drops(
    widths: Sequence[Width], costs: Costs, prices: Mapping[str, Price], *, what: str, share: float
) -> dict[str, int]:
    """How many channels each width loses: the least summed cost at which the network meets the budget.

    Args:
        what: `macs` or `parameters`.
        share: of the whole network's that the cut one has at most.
    """
    index = 0 if what == "macs" else 1
    whole = costs.total({})[index]
    target = share * whole
    if share >= 1:
        return {width.name: 0 for width in widths}
    drops = {name: price.counts[-1] for name, price in prices.items()}
    narrowest = costs.total(drops)[index]
    if narrowest > target * (1 + TOLERANCE):
        raise InputError(
            f"{what}: {share:g} of the teacher's cannot be reached: with an eighth of all channels that can be dropped,"
            f" {narrowest / whole:.2f} is left. Ask for at least {narrowest / whole + 0.01:.2f}, or take"
            " another student."
        )
    touched = {width.name: {layer for layer, _, _ in costs.loss[width.name]} for width in widths}

    def cheapest(rate: float) -> dict[str, int]:
        """The drops of least cost + rate × budget, by one width after the other until none moves."""
        found = {width.name: 0 for width in widths}
        lost = costs.lost(found)
        for _ in range(4):
            moved = False
            for width in widths:
                name, price = width.name, prices[width.name]
                best, best_value = found[name], float("inf")
                for count, cost in zip(price.counts, price.costs, strict=True):
                    trial = dict(lost)
                    for layer, side, each in costs.loss[name]:
                        trial[layer, side] += each * (count - found[name])
                    spent = sum(costs.layer(layer, trial)[index] for layer in touched[name])
                    value = cost + rate * spent / whole
                    if value < best_value:
                        best, best_value, best_lost = count, value, trial
                moved |= best != found[name]
                found[name], lost = best, best_lost
            if not moved:
                break
        return found

    low, high = 1e-9, 1e9
    for _ in range(50):
        middle = (low * high) ** 0.5
        found = cheapest(middle)
        if costs.total(found)[index] > target:
            low = middle
        else:
            high, drops = middle, found
    return _fill(widths, costs, prices, drops, target, index)


def _fill(
    widths: Sequence[Width], costs: Costs, prices: Mapping[str, Price], drops: dict[str, int], target: float, index: int
) -> dict[str, int]:
    """Channels given back while the budget allows: prices come in steps, and budgets do not."""
    for width in sorted(widths, key=lambda w: -prices[w.name].costs[prices[w.name].counts.index(drops[w.name])]):
        while drops[width.name] > 0:
            trial = drops | {width.name: drops[width.name] - 1}
            if costs.total(trial)[index] > target:
                break
            drops = trial
    return drops
