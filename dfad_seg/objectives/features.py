"""What Qu, Wang and Xiao 2021 (arXiv 2102.11638) add to the game: activation regularisation and virtual interpolation.

The paper's text is not open, so both are interpretations, for dense prediction. By the first the student matches the
teacher "close to activation boundaries": its form is that of the activation boundary transfer of Heo et al. 2019 (AAAI,
arXiv 1811.03233). It needs the inside of both networks, and the labels of nobody. Begin with small weights (0.01 to
0.1): unlikely images can spoil a student. The second makes "virtual samples and labels in-between decision boundaries":
its form is that of mixup (Zhang et al. 2018), applied to the teacher's logits instead of labels.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfad_seg.common.errors import InputError
from dfad_seg.common.modules import evaluating, hooked
from dfad_seg.common.values import Rate, Share, options

ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish)
ENCODERS = ("encoder", "backbone")  # smp's and torchvision's names
STRIDES = (8, 16)


def activation_boundary(student_features: Tensor, teacher_features: Tensor, *, margin: float = 1.0) -> Tensor:
    """Mean of (s + μ)² where s > −μ and t ≤ 0, (s − μ)² where s ≤ μ and t > 0, else 0 (Heo et al. 2019, eq. 5).

    Pre-activation features (N, C, ...) of one shape: the student's should have the teacher's sign, by a margin μ.
    The paper sums over channels and positions; the mean keeps the weight independent of a network's size.
    """
    s, active = student_features.float(), teacher_features > 0
    gap = torch.where(active, margin - s, margin + s).clamp_min(0)
    return gap.square().mean()


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
    """The activation boundary loss of a teacher and a student, on pairs of their layers.

    For each output stride of 8 and 16 that both networks have, the last activation of their encoders at that stride is
    compared; with no such stride in common, that of the deepest stride of each. Of a network that keeps no `encoder` or
    `backbone` the whole is searched.

    Args:
        image_size: (H, W) of the images that the layers are chosen for.

    Attributes:
        pairs: names of (teacher's layer, student's layer).
        connectors: trained with the student, by its optimiser; no part of it afterwards.

    Raises:
        InputError: a network is opaque, or its activations are no modules.
    """

    def __init__(self, weight: float, *, teacher: nn.Module, student: nn.Module, image_size: tuple[int, int]) -> None:
        self.weight = weight
        of_teacher = _deepest_by_stride(teacher, "teacher", image_size)
        of_student = _deepest_by_stride(student, "student", image_size)
        common = [stride for stride in STRIDES if stride in of_teacher and stride in of_student]
        chosen = [(of_teacher[t], of_student[s]) for t, s in zip(common, common, strict=True)]
        chosen = chosen or [(of_teacher[max(of_teacher)], of_student[max(of_student)])]
        self.pairs = [(t, s) for (t, _), (s, _) in chosen]
        self._networks = (teacher, student)
        self._seen: tuple[dict[str, Tensor], dict[str, Tensor]] | None = None
        self.connectors: nn.Module = Connectors([(s.shape[1], t.shape[1]) for (_, t), (_, s) in chosen])

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Record the features of the next forward passes of both networks; `loss()` then compares them."""
        teacher, student = self._networks
        names = list(zip(*self.pairs, strict=True))
        with watch_layers(teacher, names[0]) as of_teacher, watch_layers(student, names[1]) as of_student:
            yield
        self._seen = (of_teacher, of_student)

    def loss(self, count: int | None = None) -> Tensor:
        """Unweighted, of the first `count` samples (of all, by default), for which both networks saw the same images.

        The student's features are resized to the teacher's positions where they differ.
        """
        seen, self._seen = self._seen, None
        if seen is None:
            raise RuntimeError("no forward pass of the networks was watched")
        connected = self.connectors([seen[1][name][:count] for _, name in self.pairs])
        wanted = [seen[0][name][:count] for name, _ in self.pairs]
        losses = [activation_boundary(_resized(c, t), t) for c, t in zip(connected, wanted, strict=True)]
        return torch.stack(losses).mean()


@contextmanager
def watch_layers(network: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Within the block, forward passes fill the dictionary with what activation layers are given, in order.

    The last call counts. Layers are looked up by name each time, so that networks may be moved, wrapped or copied
    meanwhile.
    """
    seen: dict[str, Tensor] = {}

    def before(name: str, layer: nn.Module, given: tuple) -> None:
        seen.pop(name, None)
        # An in-place activation would overwrite what was recorded.
        seen[name] = given[0].clone() if getattr(layer, "inplace", False) else given[0]

    with hooked({name: network.get_submodule(name) for name in names}, before=before):
        yield seen


@torch.no_grad()
def _deepest_by_stride(network: nn.Module, role: str, image_size: tuple[int, int]) -> dict[int, tuple[str, Tensor]]:
    """By output stride the last activation layer and what a grey image gives it; the network is left as it was."""
    names = [name for name, layer in network.named_modules() if isinstance(layer, ACTIVATIONS)]
    inside = [name for name in names if any(part in ENCODERS for part in name.split("."))]
    seen: dict[str, Tensor] = {}
    if names:
        with evaluating(network), watch_layers(network, inside or names) as seen:
            shape = (1, getattr(network, "in_channels", 3), *image_size)
            network(torch.full(shape, 0.5, device=next(network.parameters()).device))
    # In the order of the calls, so that the last one of a stride stays.
    wide = {name: given for name, given in seen.items() if given.dim() == 4 and min(given.shape[2:]) > 1}
    if not wide:
        raise InputError(
            f"activation_boundary compares hidden layers of the {role}, and none was found: it has no activations that"
            " are modules (TorchScript and torch.export files hide theirs) and see more than one position at image_size"
            f" {image_size[0]}x{image_size[1]}. Leave it out, or load the network from its Python class."
        )
    return {round(image_size[0] / given.shape[2]): (name, given) for name, given in wide.items()}


def _resized(features: Tensor, like: Tensor) -> Tensor:
    if features.shape[2:] == like.shape[2:]:
        return features
    return F.interpolate(features.float(), like.shape[2:], mode="bilinear", align_corners=False)


@options
class Interpolation:
    """Virtual samples between generated images, in place of the last ones of each batch of the student.

    They replace rather than join the batch, so that a step costs the same with and without them.
    """

    alpha: Rate = 1.0
    """λ in x̃ = λ x_i + (1 − λ) x_j is drawn from Beta(alpha, alpha) for each sample."""
    share: Share = 0.5
    """Of the batch that is virtual."""

    def left_alone(self, count: int) -> int:
        """How many of `count` samples are not virtual."""
        return count - math.ceil(self.share * count)

    def __call__(self, images: Tensor, logits: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """The batch with virtual samples, and the logits that the student should give.

        Args:
            images: (N, 3, H, W).
            logits: the teacher's, (N, C, H, W) or (N, C).
            rng: source of partners and shares, on the images' device.
        """
        partner = torch.randperm(len(images), generator=rng, device=rng.device)
        keep = symmetric_beta(len(images), self.alpha, rng)
        keep[: self.left_alone(len(images))] = 1

        def blend(x: Tensor) -> Tensor:
            own = keep.to(x.dtype).view(-1, *[1] * (x.dim() - 1))
            return own * x + (1 - own) * x[partner]

        return blend(images), blend(logits)


def symmetric_beta(count: int, alpha: float, rng: torch.Generator) -> Tensor:
    """`count` numbers from Beta(α, α), α > 0: X / (X + Y) of gamma variates; torch's own Beta takes no generator."""
    alphas = torch.full((2, count), alpha, dtype=torch.float64, device=rng.device)
    x, y = torch._standard_gamma(alphas, generator=rng).clamp_min(1e-300)
    return (x / (x + y)).float()
