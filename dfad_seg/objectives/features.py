"""What the student is asked for beside the teacher's logits: activations that switch where the teacher's do.

An interpretation, for dense prediction, of the activation regularisation of Qu, Wang and Xiao 2021 (arXiv 2102.11638),
by which the student matches the teacher "close to activation boundaries": the paper's text is not open, so the form is
that of the activation boundary transfer of Heo et al. 2019 (AAAI, arXiv 1811.03233). Attention transfer (Zagoruyko and
Komodakis 2017) is the cheap alternative. Both need the inside of both networks, and the labels of nobody.

Matching features on unlikely images can spoil a student: begin with small weights (0.01 to 0.1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfad_seg.common.errors import InputError
from dfad_seg.common.values import Weight, options

ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish)
ENCODERS = ("encoder", "backbone")  # smp's and torchvision's names
STRIDES = (8, 16)


@options
class Features:
    """Weights of the activation regularisers in the student's loss."""

    activation_boundary: Weight = 0.0
    """Of the activation boundary loss on hidden features."""
    attention_transfer: Weight = 0.0
    """Of attention transfer on hidden features."""

    def __post_init__(self) -> None:
        if not self.activation_boundary and not self.attention_transfer:
            raise ValueError("needed is a weight above 0 of activation_boundary or attention_transfer")


def activation_boundary(student_features: Tensor, teacher_features: Tensor, *, margin: float = 1.0) -> Tensor:
    """Mean of (s + μ)² where s > −μ and t ≤ 0, (s − μ)² where s ≤ μ and t > 0, else 0 (Heo et al. 2019, eq. 5).

    Pre-activation features (N, C, ...) of one shape: the student's should have the teacher's sign, by a margin μ.
    The paper sums over channels and positions; the mean keeps the weight independent of a network's size.
    """
    s, active = student_features.float(), teacher_features > 0
    gap = torch.where(active, margin - s, margin + s).clamp_min(0)
    return gap.square().mean()


def attention_transfer(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """‖ Q_s / ‖Q_s‖ − Q_t / ‖Q_t‖ ‖², mean over samples, with Q = Σ_c f_c² over positions.

    Zagoruyko and Komodakis 2017, eq. 2 with p = 2; in [0, 2]. Features are (N, C_s, ...) and (N, C_t, ...) with
    the same positions.
    """
    maps = [F.normalize(f.float().square().sum(dim=1).flatten(1), dim=1) for f in (student_features, teacher_features)]
    return (maps[0] - maps[1]).square().sum(dim=1).mean()


class Connectors(nn.Module):
    """One 1×1 convolution with BatchNorm per pair of layers, from the student's channels to the teacher's."""

    def __init__(self, channels: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(student, teacher, kernel_size=1, bias=False), nn.BatchNorm2d(teacher))
            for student, teacher in channels
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        return [layer(f) for layer, f in zip(self.layers, features, strict=True)]


class FeatureMatching:
    """The activation regularisers of a teacher and a student, on pairs of their layers.

    For each output stride of 8 and 16 that both networks have, the last activation of their encoders at that stride is
    compared; with no such stride in common, that of the deepest stride of each. Of a network that keeps no `encoder` or
    `backbone` the whole is searched.

    Args:
        weights: of the two terms.
        teacher, student: images (N, 3, H, W) to logits.
        image_size: (H, W) of the images that the layers are chosen for.

    Attributes:
        pairs: names of (teacher's layer, student's layer).
        connectors: trained with the student, by its optimiser; no part of it afterwards. Without the activation
            boundary it has no parameters.

    Raises:
        InputError: a network is opaque, or its activations are no modules.
    """

    def __init__(
        self, weights: Features, *, teacher: nn.Module, student: nn.Module, image_size: tuple[int, int]
    ) -> None:
        self.weights = weights
        of_teacher = _deepest_by_stride(teacher, "teacher", image_size)
        of_student = _deepest_by_stride(student, "student", image_size)
        common = [stride for stride in STRIDES if stride in of_teacher and stride in of_student]
        strides = [(stride, stride) for stride in common] or [(max(of_teacher), max(of_student))]
        self.pairs = [(of_teacher[t].name, of_student[s].name) for t, s in strides]
        self._networks = (teacher, student)
        self._seen: tuple[dict[str, Seen], dict[str, Seen]] | None = None
        channels = [(of_student[s].before.shape[1], of_teacher[t].before.shape[1]) for t, s in strides]
        self.connectors: nn.Module = Connectors(channels if weights.activation_boundary else [])

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Record the features of the next forward passes of both networks; `terms()` then compares them."""
        teacher, student = self._networks
        names = list(zip(*self.pairs, strict=True))
        with watch_layers(teacher, names[0]) as of_teacher, watch_layers(student, names[1]) as of_student:
            yield
        self._seen = (of_teacher, of_student)

    def terms(self, matching: int | None = None) -> dict[str, Tensor]:
        """The unweighted terms by name, of the first `matching` samples (of all, by default), for which both networks
        saw the same images. The student's features are resized to the teacher's positions where they differ.
        """
        seen, self._seen = self._seen, None
        if seen is None:
            raise RuntimeError("no forward pass of the networks was watched")
        teacher = [seen[0][name] for name, _ in self.pairs]
        student = [seen[1][name] for _, name in self.pairs]
        terms = {}
        if self.weights.activation_boundary:
            connected = self.connectors([s.before[:matching] for s in student])
            losses = [
                activation_boundary(_resized(c, t.before), t.before[:matching])
                for c, t in zip(connected, teacher, strict=True)
            ]
            terms["activation_boundary"] = torch.stack(losses).mean()
        if self.weights.attention_transfer:
            losses = [
                attention_transfer(_resized(s.after[:matching], t.after), t.after[:matching])
                for s, t in zip(student, teacher, strict=True)
            ]
            terms["attention_transfer"] = torch.stack(losses).mean()
        return terms

    def weighted(self, terms: dict[str, Tensor]) -> Tensor:
        """The sum of `terms()` by their weights."""
        return torch.stack([getattr(self.weights, name) * value for name, value in terms.items()]).sum()


class Seen(NamedTuple):
    """What one activation layer did in its last forward pass."""

    name: str
    before: Tensor
    after: Tensor


@contextmanager
def watch_layers(network: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Seen]]:
    """Within the block, forward passes of activation layers fill the dictionary, in order; the last call counts.

    Layers are looked up by name each time, so that networks may be moved, wrapped or copied meanwhile.
    """
    seen: dict[str, Seen] = {}
    inputs: dict[str, Tensor] = {}

    def before(name: str, layer: nn.Module, given: tuple) -> None:
        # An in-place activation would overwrite what was recorded.
        inputs[name] = given[0].clone() if getattr(layer, "inplace", False) else given[0]

    def after(name: str, layer: nn.Module, given: tuple, output: Tensor) -> None:
        seen.pop(name, None)
        seen[name] = Seen(name, inputs.pop(name), output)

    layers = [(name, network.get_submodule(name)) for name in names]
    handles = [layer.register_forward_pre_hook(partial(before, name)) for name, layer in layers]
    handles += [layer.register_forward_hook(partial(after, name)) for name, layer in layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def _deepest_by_stride(network: nn.Module, role: str, image_size: tuple[int, int]) -> dict[int, Seen]:
    """The last activation layer of each output stride, as one grey image shows them; the network is left as it was."""
    scripted = any(isinstance(m, torch.jit.ScriptModule) for m in network.modules())
    if scripted or not any(isinstance(m, (nn.Conv2d, nn.Linear)) for m in network.modules()):
        raise InputError(
            f"features (activation_boundary, attention_transfer) are hidden layers of the {role}, and this one is "
            "opaque (TorchScript, torch.export). Leave features out, or load the network from its Python class."
        )
    names = [name for name, layer in network.named_modules() if isinstance(layer, ACTIVATIONS)]
    inside = [name for name in names if any(part in ENCODERS for part in name.split("."))]
    modes = {module: module.training for module in network.modules()}
    try:
        network.eval()
        with watch_layers(network, inside or names) as seen:
            network(torch.full((1, 3, *image_size), 0.5, device=next(network.parameters()).device))
    finally:
        for module, mode in modes.items():
            module.training = mode
    # In the order of the calls, so that the last one of a stride stays.
    wide = [layer for layer in seen.values() if layer.before.dim() == 4 and min(layer.before.shape[2:]) > 1]
    if not wide:
        raise InputError(
            f"no layer of the {role} was found whose features could be compared: it has no activations that are "
            f"modules and see more than one position at image_size {image_size[0]}x{image_size[1]}. Leave features out."
        )
    return {round(image_size[0] / layer.before.shape[2]): layer for layer in wide}


def _resized(features: Tensor, like: Tensor) -> Tensor:
    if features.shape[2:] == like.shape[2:]:
        return features
    return F.interpolate(features.float(), like.shape[2:], mode="bilinear", align_corners=False)
