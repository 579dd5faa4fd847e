"""Channels that go together, and a network that loses some of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

MATRICES = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
"""Layers with a weight matrix per position: those that produce and read channels."""

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
