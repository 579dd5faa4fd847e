"""What each channel is worth: the price of dropping more and more of a width's channels, by what layers read."""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfad_seg.common.modules import hooked
from dfad_seg.common.progress import ProgressReport
from dfad_seg.segmentors.base import Segmentor
from dfad_seg.segmentors.cut_narrow import Member, Price, Width, layers_of

ROUNDS = 24
"""Most numbers of channels that are tried per width."""
STEPS = 160
"""About as many steps are taken to put a width's channels in order: more is slow, as each costs a matrix."""
POSITIONS = 128
"""Positions per image that a layer is fitted on."""


def by_magnitude(segmentor: Segmentor, widths: Sequence[Width]) -> dict[str, Price]:
    """Cost: the share of the width's squared weights that goes, averaged over the layers that make and read it."""
    layers = dict(segmentor.network.named_modules())
    prices = {}
    for width in widths:
        shares = []
        for member in width.members:
            layer = layers[member.layer]
            if isinstance(layer, nn.BatchNorm2d):
                continue
            axis = 0 if (member.side == "out") != isinstance(layer, nn.ConvTranspose2d) else 1
            energy = _weight(layer).float().square().transpose(0, axis).flatten(1).sum(1)
            energy = _spread(energy[member.rows], member.of, width.size)
            shares.append(energy / energy.sum().clamp_min(1e-12))
        score = torch.stack(shares).mean(0)
        order = score.argsort()
        sums = F.pad(score[order].cumsum(0), (1, 0))
        counts = _counts(width.size)
        prices[width.name] = Price(order, counts, tuple(float(sums[n]) for n in counts))
    return prices


def by_agreement(
    segmentor: Segmentor, widths: Sequence[Width], images: Tensor, *, ridge: float = 0.01
) -> dict[str, Price]:
    """Cost: how much the predictions are expected to change on images, once the layers behind are refitted.

    Where a layer reads x and its outputs are W x, dropping inputs and refitting the others changes these by the least
    squares of the layer (optimal brain surgeon, in blocks). Each output counts by the mean square of the gradient of
    the log-probability of classes that are drawn from the network's own prediction (Fisher), so that the sum over
    outputs and positions is the divergence of predictions to second order. Greedy: a few of a width's channels go at
    a time, those that then cost least.

    Args:
        images: (N, 3, H, W) in [0, 1].
    """
    readers = {member.layer for width in widths for member in width.side("in")}
    grams, fishers = _statistics(segmentor, readers, images)
    inverses = {}
    for name, gram in grams.items():
        squares = gram.diagonal(dim1=1, dim2=2)
        squares.add_(ridge * squares.mean() + 1e-12)
        inverses[name] = torch.linalg.inv(gram)
    layers = dict(segmentor.network.named_modules())
    prices = {}
    with ProgressReport("pricing the channels", len(widths), unit="width") as progress:
        for width in widths:
            names = [(member, member.layer) for member in width.side("in") if member.layer in grams]
            fits = [_Fit(member, layers[name], inverses[name], fishers[name]) for member, name in names]
            prices[width.name] = _eliminate(width, fits)
            progress.advance()
    return prices


class _Fit:
    """A layer as inputs go and the others make up for them: its weights, and the inverse of its inputs' covariance.

    Both are of each tap of the kernel for itself, (taps, …): inputs make up for each other at one position.
    """

    def __init__(self, member: Member, layer: nn.Module, inverse: Tensor, fisher: Tensor) -> None:
        self.member, self.inverse, self.fisher = member, inverse.clone(), fisher.double()
        weight = _weight(layer).double()
        self.weight = weight.view(*weight.shape[:2], -1).permute(2, 0, 1).contiguous()  # (taps, outputs, inputs)

    def scores(self, size: int) -> Tensor:
        """What each channel of the width costs this layer if it goes alone."""
        rows = self.member.rows
        each = (self.fisher @ self.weight[:, :, rows].square()) / self.inverse.diagonal(dim1=1, dim2=2)[:, rows]
        return _spread(each.sum(0), self.member.of, size)

    def drop(self, channels: Tensor) -> float:
        """Take channels of the width off, and say what it costs."""
        rows = self.member.rows[torch.isin(self.member.of, channels)]
        if not len(rows):
            return 0.0
        lost = self.inverse[:, rows]
        block = lost[:, :, rows]
        weight = self.weight[:, :, rows]
        solved = torch.linalg.solve(block, weight.mT).mT
        cost = float(self.fisher @ (weight * solved).sum(2).sum(0))
        self.weight -= solved @ lost
        self.inverse -= lost.mT @ torch.linalg.solve(block, lost)
        self.weight[:, :, rows] = 0
        self.inverse[:, rows] = 0
        self.inverse[:, :, rows] = 0
        self.inverse[:, rows, rows] = 1  # nothing: the weights are 0
        return max(cost, 0.0)


def _eliminate(width: Width, fits: list[_Fit]) -> Price:
    stay = torch.ones(width.size, dtype=torch.bool)
    order: list[Tensor] = []
    costs = [0.0]
    counts = _counts(width.size)
    # Few at a time, as channels that can stand in for each other must not go together.
    at_once = max([1, *(fit.inverse.shape[1] * len(fit.inverse) // STEPS for fit in fits)])
    for before, after in itertools.pairwise(counts):
        cost = 0.0
        for first in range(before, after, at_once):
            scores = torch.stack([fit.scores(width.size) for fit in fits]).sum(0) if fits else torch.zeros(width.size)
            scores[~stay] = torch.inf
            go = scores.argsort()[: min(at_once, after - first)]
            stay[go] = False
            order.append(go)
            cost += sum(fit.drop(go) for fit in fits)
        costs.append(costs[-1] + cost)
    return Price(torch.cat([*order, stay.nonzero().flatten()]), counts, tuple(costs))


def _statistics(segmentor: Segmentor, readers: set[str], images: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Per layer that reads: its inputs' covariance, (taps, inputs, inputs), and its outputs' Fisher information."""
    grams: dict[str, Tensor] = {}
    fishers: dict[str, Tensor] = {}
    sums: dict[str, tuple[Tensor, int]] = {}
    rng = torch.Generator(images.device).manual_seed(0)
    layers = {name: layer for name, layer in layers_of(segmentor.network).items() if name in readers}
    layers = {name: layer for name, layer in layers.items() if refittable(layer)}
    outputs: dict[str, Tensor] = {}

    def watch(name: str, layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        x = read_inputs(layer, given[0].detach()).float()
        x = x.view(len(x), _weight(layer).shape[1], -1).permute(2, 0, 1)  # (taps, samples, inputs)
        x = x.double() if x.shape[1] <= 64 else x  # pooled: next to their mean, few values hardly vary
        grams[name] = grams.get(name, 0) + x.mT @ x
        total, count = sums.get(name, (x.new_zeros(()), 0))
        sums[name] = (total + x.sum(1), count + x.shape[1])
        outputs[name] = output

    with hooked(layers, after=watch):
        for part in images.split(16):
            outputs.clear()
            logits = segmentor(part.requires_grad_(True))
            log_probabilities = logits.log_softmax(1)
            with torch.no_grad():
                flat = log_probabilities.exp().permute(0, 2, 3, 1).flatten(0, 2)
                drawn = torch.multinomial(flat, 1, generator=rng).view(len(part), *logits.shape[-2:])
            loss = F.nll_loss(log_probabilities, drawn, reduction="sum") / drawn[0].numel()
            gradients = torch.autograd.grad(loss, list(outputs.values()), allow_unused=True)
            for name, gradient in zip(outputs, gradients, strict=True):
                if gradient is None:
                    continue
                # A linear layer may read images, too: (N, H, W, C) in ConvNeXt.
                dims = tuple(range(gradient.ndim - 1)) if isinstance(layers[name], nn.Linear) else (0, 2, 3)
                fishers[name] = fishers.get(name, 0) + gradient.square().sum(dims) / len(images)
    for name, (total, count) in sums.items():
        mean = total / count
        grams[name] = (grams[name] / count - mean[:, :, None] * mean[:, None]).double()
        fishers.setdefault(name, torch.zeros(len(_weight(layers[name])), device=images.device))
    return grams, fishers


def _weight(layer: nn.Module) -> Tensor:
    assert isinstance(layer.weight, Tensor)
    return layer.weight.detach()


def _counts(size: int) -> tuple[int, ...]:
    """Numbers of channels to drop: at most `ROUNDS` steps, at least an eighth of the channels stays."""
    most = size - max(1, size // 8)
    step = max(1, -(-size // (ROUNDS + 3)))
    if size >= 64:
        step = -(-step // 4) * 4  # what stays is a multiple of four where the width is: faster on most machines
    return tuple(range(0, most + 1, step))


def _spread(values: Tensor, of: Tensor, size: int) -> Tensor:
    return torch.zeros(size, dtype=values.dtype).index_add_(0, of, values.cpu())


def refittable(module: nn.Module) -> bool:
    """Whether a layer's weights are one matrix over its inputs."""
    if isinstance(module, nn.Conv2d):
        return module.groups == 1 and not isinstance(module.padding, str) and module.padding_mode == "zeros"
    return isinstance(module, nn.Linear)


def read_inputs(module: nn.Module, inputs: Tensor) -> Tensor:
    """Inputs of a layer at random output positions, the same every time, (samples, inputs × taps)."""
    if isinstance(module, nn.Linear):
        return read_outputs(module, inputs)
    assert isinstance(module, nn.Conv2d) and not isinstance(module.padding, str)
    kernel, dilation, padding, stride = module.kernel_size, module.dilation, module.padding, module.stride
    if kernel == (1, 1) and stride == (1, 1) and not any(padding):
        patches = inputs.flatten(2)
    else:
        patches = F.unfold(inputs, kernel, dilation, padding, stride)
    return _some(patches)


def read_outputs(module: nn.Module, outputs: Tensor) -> Tensor:
    """Outputs of a layer at the positions that `read_inputs` takes, (samples, outputs)."""
    if isinstance(module, nn.Linear):
        flat = outputs.reshape(-1, outputs.shape[-1])
        return flat[_shuffled(len(flat))[: POSITIONS * len(outputs)]]
    return _some(outputs.flatten(2))


def _shuffled(count: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))


def _some(columns: Tensor) -> Tensor:
    if columns.shape[-1] > POSITIONS:
        columns = columns[..., _shuffled(columns.shape[-1])[:POSITIONS]]
    return columns.transpose(1, 2).flatten(0, 1)
