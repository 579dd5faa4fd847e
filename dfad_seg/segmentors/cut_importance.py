"""What each channel is worth: the price of dropping more and more of a width's channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfad_seg.segmentors.base import Segmentor
from dfad_seg.segmentors.cut_compensate import hooks, read_inputs, refittable
from dfad_seg.segmentors.cut_widths import Width

ROUNDS = 24
"""Most rounds in which the channels of a width are ordered; in each the cheapest ones go."""


@dataclass(frozen=True)
class Price:
    """Of dropping a width's channels: how many at a time, in which order, and at what cost in all."""

    order: Tensor
    """Channels, the first to go first."""
    counts: tuple[int, ...]
    """Numbers of channels to drop, from 0 up."""
    costs: tuple[float, ...]
    """Of dropping so many."""


def by_weights(segmentor: Segmentor, widths: Sequence[Width], *, norms: bool) -> dict[str, Price]:
    """Cost: the share of the width's squared weights that goes, of the layers that make and read its channels.

    Args:
        norms: of its BatchNorm scales instead, where it has some.
    """
    layers = dict(segmentor.network.named_modules())
    prices = {}
    for width in widths:
        found: list[Tensor] = []
        scales: list[Tensor] = []
        for member in width.members:
            layer = layers[member.layer]
            weight = layer.weight
            if weight is None:
                continue
            values = weight.detach().float().square()
            if isinstance(layer, nn.BatchNorm2d):
                scales.append(_spread(values[member.rows], member.of, width.size))
            else:
                axis = 0 if (member.side == "out") != isinstance(layer, nn.ConvTranspose2d) else 1
                energy = values.transpose(0, axis).flatten(1).sum(1)
                found.append(_spread(energy[member.rows], member.of, width.size))
        chosen = scales if norms and scales else found
        score = torch.stack([values / values.sum().clamp_min(1e-12) for values in chosen]).mean(0)
        order = score.argsort()
        counts = _counts(width.size)
        sums = F.pad(score[order].cumsum(0), (1, 0))
        prices[width.name] = Price(order, counts, tuple(float(sums[n]) for n in counts))
    return prices


def by_agreement(
    segmentor: Segmentor, widths: Sequence[Width], images: Tensor, *, ridge: float = 0.01
) -> dict[str, Price]:
    """Cost: how much the logits are expected to change on images, after the layers behind were refitted.

    Where a layer reads x and answers W x, dropping inputs and refitting the others changes its outputs by the least
    squares of the layer (optimal brain surgeon, in blocks); each output counts by the mean square of the gradient of
    the log-probability of classes that are drawn from the network's own prediction, so that the sum over outputs and
    positions is the divergence of predictions to second order (Fisher). Greedy: a few of a width's channels go at a
    time, those that then cost least.

    Args:
        images: (N, 3, H, W) in [0, 1].
    """
    readers = {member.layer for width in widths for member in width.side("in")}
    grams, fishers = _statistics(segmentor, readers, images)
    layers = dict(segmentor.network.named_modules())
    prices = {}
    for width in widths:
        state = []
        for member in width.side("in"):
            if member.layer not in grams:
                continue
            weight = layers[member.layer].weight.detach().flatten(2) if layers[member.layer].weight.ndim > 2 else (
                layers[member.layer].weight.detach()[..., None])  # fmt: skip
            gram = grams[member.layer].clone()
            gram.diagonal().add_(ridge * gram.diagonal().mean() + 1e-12)
            inverse = torch.linalg.inv(gram)
            state.append(
                (
                    member,
                    weight.flatten(1).double().clone(),
                    inverse.double(),
                    fishers[member.layer].double(),
                    weight.shape[-1],
                )
            )
        prices[width.name] = _eliminate(width, state)
    return prices


def _eliminate(width: Width, state: list) -> Price:
    alive = torch.ones(width.size, dtype=torch.bool)
    order: list[Tensor] = []
    costs = [0.0]
    counts = _counts(width.size)
    for before, after in zip(counts, counts[1:], strict=False):
        score = torch.zeros(width.size, dtype=torch.float64)
        for member, weight, inverse, fisher, taps in state:
            columns = (member.rows[:, None] * taps + torch.arange(taps)).flatten()
            each = (fisher @ weight[:, columns].square()) / inverse.diagonal()[columns].clamp_min(1e-30)
            score += _spread(each.view(-1, taps).sum(1), member.of, width.size)
        score[~alive] = torch.inf
        go = score.argsort()[: after - before]
        alive[go] = False
        order.append(go)
        cost = 0.0
        for index, (member, weight, inverse, fisher, taps) in enumerate(state):
            rows = member.rows[torch.isin(member.of, go)]
            columns = (rows[:, None] * taps + torch.arange(taps)).flatten()
            block = inverse[columns][:, columns]
            block.diagonal().add_(1e-12)
            solved = torch.linalg.solve(block, weight[:, columns].T)  # (b, o)
            cost += float((fisher * (weight[:, columns] * solved.T).sum(1)).sum())
            weight = weight - solved.T @ inverse[columns]
            inverse = inverse - inverse[:, columns] @ torch.linalg.solve(block, inverse[columns])
            weight[:, columns] = 0
            inverse[columns] = 0
            inverse[:, columns] = 0
            inverse[columns, columns] = 1e30
            state[index] = (member, weight, inverse, fisher, taps)
        costs.append(costs[-1] + max(cost, 0.0))
    rest = alive.nonzero().flatten()
    return Price(torch.cat([*order, rest]), counts, tuple(costs))


def _statistics(segmentor: Segmentor, readers: set[str], images: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Per layer that reads: the covariance of its inputs, and the Fisher information of its outputs by image."""
    grams: dict[str, Tensor] = {}
    fishers: dict[str, Tensor] = {}
    sums: dict[str, tuple[Tensor, int]] = {}
    rng = torch.Generator().manual_seed(0)
    network = segmentor.network
    outputs: dict[str, tuple[nn.Module, Tensor]] = {}

    def before(name: str, module: nn.Module, inputs: Tensor) -> None:
        if name in readers and refittable(module):
            x = read_inputs(module, inputs.detach(), torch.Generator().manual_seed(0)).float()
            grams[name] = grams.get(name, 0) + x.T @ x
            total, count = sums.get(name, (torch.zeros(x.shape[1]), 0))
            sums[name] = (total + x.sum(0), count + len(x))

    def after(name: str, module: nn.Module, output: Tensor) -> None:
        if name in readers and refittable(module):
            outputs[name] = (module, output)

    with hooks(network, before=before, after=after):
        for part in images.split(16):
            outputs.clear()
            logits = segmentor(part.requires_grad_(True))
            log_probabilities = logits.log_softmax(1)
            with torch.no_grad():
                flat = log_probabilities.exp().permute(0, 2, 3, 1).flatten(0, 2)
                drawn = torch.multinomial(flat, 1, generator=rng).view(len(part), *logits.shape[-2:])
            loss = F.nll_loss(log_probabilities, drawn, reduction="sum") / drawn[0].numel()
            names = list(outputs)
            gradients = torch.autograd.grad(loss, [outputs[name][1] for name in names], allow_unused=True)
            for name, gradient in zip(names, gradients, strict=True):
                if gradient is None:
                    continue
                dims = (0, 2, 3) if gradient.ndim == 4 else tuple(range(gradient.ndim - 1))
                fishers[name] = fishers.get(name, 0) + gradient.square().sum(dims) / len(images)
    for name, (total, count) in sums.items():
        mean = total / count
        grams[name] = (grams[name] / count - mean[:, None] * mean).double()
        fishers.setdefault(name, torch.zeros(len(layers_weight(network, name))))
    return grams, fishers


def layers_weight(network: nn.Module, name: str) -> Tensor:
    weight = network.get_submodule(name).weight
    assert isinstance(weight, Tensor)
    return weight


def _counts(size: int) -> tuple[int, ...]:
    """Numbers of channels to drop: at most `ROUNDS` steps, at least an eighth of the channels stays."""
    most = size - max(1, size // 8)
    step = max(1, -(-size // (ROUNDS + 3)))
    if size >= 64:
        step = -(-step // 4) * 4  # what stays is a multiple of four where the width is: faster on most machines
    return tuple(range(0, most + 1, step))


def _spread(values: Tensor, of: Tensor, size: int) -> Tensor:
    return torch.zeros(size, dtype=values.dtype).index_add_(0, of, values)
