"""A student cut out of its teacher: the same network with fewer channels, and what those gave made up for by the
others, in closed forms on images, before any training."""

import copy
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from dfad_seg.common.errors import InputError
from dfad_seg.common.modules import hooked
from dfad_seg.common.values import Channels, Positive, Share, options
from dfad_seg.segmentors.base import Segmentor
from dfad_seg.segmentors.convolutions import restore_convolutions
from dfad_seg.segmentors.cut_importance import by_agreement, by_magnitude, read_inputs, read_outputs, refittable
from dfad_seg.segmentors.cut_narrow import Rows, channels, dropped_rows, find_drops, layers_of, narrow, same_width
from dfad_seg.segmentors.cut_widths import find_widths
from dfad_seg.segmentors.kinds import WEIGHT_OPTIONS, Network, SourceOptions, pad_to_stride

PIXELS = 2**21
"""Of the images to which a cut network is refitted, which pass through it at once: 2 GiB for a MobileNetV2."""


@options
class CutOptions:
    """A student that is its teacher with fewer channels."""

    macs: Share | None = None
    """Multiply-accumulates of an image of `image_size` to keep, as a share of the teacher's."""
    parameters: Share | None = None
    """Parameters to keep, as a share of the teacher's; in place of `macs`."""
    importance: Literal["agreement", "magnitude"] = "agreement"
    """Which channels go first: those whose loss changes the predictions on generated images least, or those with the
    smallest weights."""
    compensate: bool = True
    """Refit the layers that read dropped channels, on generated images, before any training."""
    images: Positive = 128
    """Generated images for importance and compensation."""
    rehearsal: Positive = 100
    """Iterations in which the generator learns alone, by its priors, before its images are used."""

    @property
    def needs_images(self) -> bool:
        """Whether generated images decide anything."""
        return (self.macs or self.parameters) != 1 and (self.importance == "agreement" or self.compensate)

    def __post_init__(self) -> None:
        if (self.macs is None) == (self.parameters is None):
            raise ValueError("a cut needs one budget: macs or parameters, the share of the teacher's to keep")


class Cut(NamedTuple):
    """A cut student, and what it kept."""

    student: Segmentor
    rows: Rows
    """Channels of the teacher that stay, per layer and side that lost some."""
    macs_share: float
    parameters_share: float
    parts: dict[str, tuple[float, float]]
    """Multiply-accumulates before and after, by part of the network."""

    def __str__(self) -> str:
        parts = (f"{name} {before / 1e6:.0f} to {after / 1e6:.0f}" for name, (before, after) in self.parts.items())
        return (
            f"cut: {self.macs_share:.1%} of the teacher's multiply-accumulates and {self.parameters_share:.1%} of its"
            f" parameters stay; millions of multiply-accumulates by part: {', '.join(parts)}"
        )


def cut(teacher: Segmentor, options: CutOptions, image_size: tuple[int, int], images: Tensor | None = None) -> Cut:
    """Cut a student out of its teacher, which is left as it is.

    Args:
        image_size: (H, W) for which the multiply-accumulates count.
        images: (N, 3, H, W) in [0, 1], generated, on the teacher's device; needed for importance by agreement and to
            compensate.

    Raises:
        InputError: no layers that could be cut, or a budget that cannot be met.
    """
    if teacher.spec is None:
        raise InputError("a teacher that was built by hand cannot be cut, as the student could not be saved.")
    widths, costs = find_widths(teacher, image_size)
    what, share = ("macs", options.macs) if options.macs is not None else ("parameters", options.parameters)
    assert share is not None
    if share < 1 and options.importance == "agreement":
        prices = by_agreement(_plain_copy(teacher), widths, _needed(images))
    else:
        prices = by_magnitude(teacher, widths)
    drops = find_drops(widths, costs, prices, what=what, share=share)
    kept = {name: prices[name].order[count:].sort().values for name, count in drops.items()}
    student = _plain_copy(teacher)
    rows = narrow(student.network, dropped_rows(widths, kept))
    student.spec = _spec(teacher.spec, student.network, rows)
    with torch.no_grad():  # channels that do not go together as the graph says are said here
        student(torch.zeros(1, student.in_channels, *image_size, device=next(student.parameters()).device))
    if options.compensate and rows:
        some = _needed(images)[: max(8, PIXELS // (image_size[0] * image_size[1]))]
        inside = pad_to_stride(teacher.normalise(some), teacher.stride, teacher.smallest)
        compensate(student.network, _plain_copy(teacher).network, rows, inside)
    after, before = costs.total(drops), costs.total({})
    parts = {name: (macs, costs.by_part(drops)[name]) for name, macs in costs.by_part({}).items()}
    return Cut(student, rows, after[0] / before[0], after[1] / before[1], parts)


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

    def watch(name: str, module: nn.Module, given: tuple[Tensor, ...], outputs: Tensor) -> None:
        if isinstance(module, nn.BatchNorm2d) and module.track_running_stats:
            moments[name] = _moments(given[0])
        if f"{name}:in" in rows and refittable(module):
            targets[name] = read_outputs(module, outputs)

    with hooked(layers_of(teacher), after=watch):
        teacher(images)

    def refit(name: str, module: nn.Module, given: tuple[Tensor, ...]) -> None:
        inputs = given[0]
        if name in targets:
            kept = rows.get(f"{name}:out")
            target = targets.pop(name)
            _fit(module, read_inputs(module, inputs), target if kept is None else target[:, kept], ridge)
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


@options
class StoredCut(SourceOptions):
    """A cut network as its file stores it; a run writes it. In a config of one's own, give macs or parameters."""

    of: dict[str, Any]
    """The options of `build_segmentor` of the network that it was cut from."""
    widths: dict[str, tuple[Channels, Channels]]
    """(outputs, inputs) of the layers that lost channels, by name."""


def narrowed(whole: Segmentor, widths: Mapping[str, tuple[int, int]]) -> Network:
    """A network with the widths (outputs, inputs) that its cut layers have, in place."""
    layers = layers_of(whole.network)
    gone: Rows = {}
    for name, wanted in widths.items():
        if name not in layers:
            raise InputError(f"a cut network has the layer '{name}', which the network that it was cut from has not.")
        have = channels(layers[name])
        if any(w > h for w, h in zip(wanted, have, strict=True)):
            raise InputError(f"a cut network's layer '{name}' cannot have the widths {wanted}: it was cut from {have}.")
        for side, want, count in zip(("out", "in"), wanted, have, strict=True):
            if want < count and not (side == "in" and same_width(layers[name])):
                gone[f"{name}:{side}"] = torch.arange(want, count)
    narrow(whole.network, gone)
    contract = {**whole.preprocessing(), "output": whole.output, "classes": whole.classes}
    contract |= {"threshold": whole.threshold} if whole.out_channels != whole.num_classes else {}
    return Network(whole.network, contract, whole.palette, fixed_size=whole.fixed_size)


def _spec(teacher: dict[str, Any], network: nn.Module, rows: Rows) -> dict[str, Any]:
    # What is cut twice is described by what was cut first.
    of = teacher["of"] if teacher["source"] == "cut" else teacher
    widths = dict(teacher["widths"]) if teacher["source"] == "cut" else {}
    layers = layers_of(network)
    touched = {key.rsplit(":", 1)[0] for key in rows}
    return {
        "source": "cut",
        "num_classes": teacher["num_classes"],
        "of": {name: value for name, value in of.items() if name not in WEIGHT_OPTIONS},
        "widths": widths | {name: list(channels(layers[name])) for name in layers if name in touched},
    }


def _needed(images: Tensor | None) -> Tensor:
    if images is None:
        raise InputError("this cut needs generated images: without any, take importance: magnitude, compensate: false.")
    return images


def _plain_copy(teacher: Segmentor) -> Segmentor:
    """A copy that can be trained, without the rewrites that make a fixed network faster."""
    copied = copy.deepcopy(teacher)
    copied.is_frozen = False
    restore_convolutions(copied)
    return copied.requires_grad_(True).eval()
