"""What dropped channels gave is made up for by those that stay: closed forms on images, before any training."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfad_seg.common.modules import hooked
from dfad_seg.segmentors.cut_narrow import Rows, layers_of

POSITIONS = 128
"""Positions per image that a layer is fitted on."""


def refittable(module: nn.Module) -> bool:
    """Whether a layer's weights are one matrix over its inputs."""
    if isinstance(module, nn.Conv2d):
        return module.groups == 1 and not isinstance(module.padding, str) and module.padding_mode == "zeros"
    return isinstance(module, nn.Linear)


def read_inputs(module: nn.Module, inputs: Tensor, rng: torch.Generator) -> Tensor:
    """Inputs of a layer at random output positions, (samples, inputs × taps)."""
    if isinstance(module, nn.Linear):
        return read_outputs(module, inputs, rng)
    assert isinstance(module, nn.Conv2d) and not isinstance(module.padding, str)
    kernel, dilation, padding, stride = module.kernel_size, module.dilation, module.padding, module.stride
    if kernel == (1, 1) and stride == (1, 1) and not any(padding):
        patches = inputs.flatten(2)
    else:
        patches = F.unfold(inputs, kernel, dilation, padding, stride)
    return _some(patches, rng)


def read_outputs(module: nn.Module, outputs: Tensor, rng: torch.Generator) -> Tensor:
    """Outputs of a layer at the positions that `read_inputs` takes with the same stream, (samples, outputs)."""
    if isinstance(module, nn.Linear):
        flat = outputs.reshape(-1, outputs.shape[-1])
        return flat[torch.randperm(len(flat), generator=rng)[: POSITIONS * len(outputs)]]
    return _some(outputs.flatten(2), rng)


def _some(columns: Tensor, rng: torch.Generator) -> Tensor:
    if columns.shape[-1] > POSITIONS:
        columns = columns[..., torch.randperm(columns.shape[-1], generator=rng)[:POSITIONS]]
    return columns.transpose(1, 2).flatten(0, 1)


@torch.no_grad()
def compensate(student: nn.Module, teacher: nn.Module, rows: Rows, images: Tensor, *, ridge: float = 0.1) -> None:
    """Refit a cut network, layer by layer in the order of the forward pass, in place.

    A layer that lost inputs gets the weights W that minimise `|y - W x|² + ridge |W - W₀|²` over positions of the
    images, with y the teacher's outputs and x the student's own inputs, which hold what earlier layers could not make
    up for (He et al. 2017; W₀ the teacher's weights for the inputs that stay; the ridge is in units of the inputs'
    mean square). BatchNorm takes over how mean and variance of its input differ from the teacher's, so that the
    teacher's statistics, of real images, stay what they are based on.

    `rows` are the channels that stay, of `narrow`; images (N, 3, H, W) are as the networks see them.
    """
    targets: dict[str, Tensor] = {}
    moments: dict[str, tuple[Tensor, Tensor]] = {}

    def seed() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    def watch(name: str, module: nn.Module, given: tuple[Tensor, ...], outputs: Tensor) -> None:
        if isinstance(module, nn.BatchNorm2d) and module.track_running_stats:
            moments[name] = _moments(given[0])
        if f"{name}:in" in rows and refittable(module):
            targets[name] = read_outputs(module, outputs, seed())

    with hooked(layers_of(teacher), after=watch):
        teacher(images)

    def refit(name: str, module: nn.Module, given: tuple[Tensor, ...]) -> None:
        inputs = given[0]
        if name in targets:
            kept = rows.get(f"{name}:out")
            target = targets.pop(name)
            _fit(module, read_inputs(module, inputs, seed()), target if kept is None else target[:, kept], ridge)
        elif name in moments and isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            kept = rows.get(f"{name}:out", torch.arange(module.num_features))
            mean, variance = (moment[kept] for moment in moments[name])
            own_mean, own_variance = _moments(inputs)
            module.running_mean += own_mean - mean
            module.running_var *= ((own_variance + 1e-8) / (variance + 1e-8)).clamp(0.1, 10)

    with hooked(layers_of(student), before=refit):
        student(images)


def _fit(module: nn.Module, inputs: Tensor, targets: Tensor, ridge: float) -> None:
    assert isinstance(module, (nn.Conv2d, nn.Linear))
    weight, bias = module.weight, module.bias
    start = weight.flatten(1)
    mean, target_mean = inputs.mean(0), targets.mean(0)
    centred = (inputs - mean).double() if len(start[0]) < 600 else inputs - mean
    gram = centred.T @ centred
    gram.diagonal().add_(ridge * gram.diagonal().mean() + 1e-8)
    missing = (targets - target_mean).to(gram) - centred @ start.T.to(gram)
    change = torch.linalg.solve(gram, centred.T @ missing).T.to(start)
    weight.copy_((start + change).view_as(weight))
    if bias is not None:
        bias.copy_(target_mean - weight.flatten(1) @ mean)


def _moments(inputs: Tensor) -> tuple[Tensor, Tensor]:
    return inputs.mean((0, 2, 3)), inputs.var((0, 2, 3), unbiased=False)
