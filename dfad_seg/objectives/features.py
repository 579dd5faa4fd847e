"""What the student is asked for beside the teacher's answers: activations that switch where the teacher's do.

An interpretation, for dense prediction, of the activation regularisation of Qu, Wang and Xiao 2021 (arXiv 2102.11638),
by which the student matches the teacher "close to activation boundaries": the paper's text is not open, so the form is
that of the activation boundary transfer of Heo et al. 2019 (AAAI, arXiv 1811.03233). Attention transfer (Zagoruyko and
Komodakis 2017) is the cheap alternative. Both need the inside of both networks, and the labels of nobody.

Matching features on unlikely images can spoil a student: begin with small weights (0.01 to 0.1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfad_seg.objectives.layers import WatchedLayer, choose_layers, watch_layers


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

    Args:
        teacher, student: images (N, 3, H, W) to logits.
        image_size: (H, W) of the images that the layers are chosen for.
        boundary_weight: of the activation boundary loss, ≥ 0.
        attention_weight: of attention transfer, ≥ 0.
        teacher_layers, student_layers: names as in `named_modules()`, of as many layers on both sides; see
            `layers.choose_layers` for what is chosen without them.

    Attributes:
        pairs: (teacher's layer, student's layer) names.
        connectors: trained with the student, by its optimiser; no part of it afterwards. Without the activation
            boundary it has no parameters.

    Raises:
        InputError: a network shows no layers, or has none of such a name.
    """

    def __init__(
        self,
        *,
        teacher: nn.Module,
        student: nn.Module,
        image_size: tuple[int, int],
        boundary_weight: float = 0.0,
        attention_weight: float = 0.0,
        teacher_layers: Sequence[str] | None = None,
        student_layers: Sequence[str] | None = None,
    ) -> None:
        self.boundary_weight = boundary_weight
        self.attention_weight = attention_weight
        pairs = choose_layers(
            teacher, student, image_size=image_size, teacher_layers=teacher_layers, student_layers=student_layers
        )
        self.pairs = [(t.name, s.name) for t, s in pairs]
        self._teacher, self._student = teacher, student
        self._seen: dict[str, dict[str, WatchedLayer]] = {}
        channels = [(s.channels, t.channels) for t, s in pairs] if boundary_weight else []
        self.connectors: nn.Module = Connectors(channels)

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Record the features of the next forward passes of both networks; `terms()` then compares them."""
        with (
            watch_layers(self._teacher, [t for t, _ in self.pairs]) as teacher,
            watch_layers(self._student, [s for _, s in self.pairs]) as student,
        ):
            yield
        self._seen = {"teacher": teacher, "student": student}

    def terms(self, matching: int | None = None) -> dict[str, Tensor]:
        """The unweighted terms by name, of the first `matching` samples (of all, by default), for which both networks
        saw the same images. The student's features are resized to the teacher's positions where they differ.
        """
        seen, self._seen = self._seen, {}
        if not seen:
            raise RuntimeError("no forward pass of the networks was watched")
        teacher = [seen["teacher"][name] for name, _ in self.pairs]
        student = [seen["student"][name] for _, name in self.pairs]
        terms = {}
        if self.boundary_weight:
            connected = self.connectors([s.before[:matching] for s in student])
            losses = [
                activation_boundary(_resized(c, t.before), t.before[:matching])
                for c, t in zip(connected, teacher, strict=True)
            ]
            terms["activation_boundary"] = torch.stack(losses).mean()
        if self.attention_weight:
            losses = [
                attention_transfer(_resized(s.after[:matching], t.after), t.after[:matching])
                for s, t in zip(student, teacher, strict=True)
            ]
            terms["attention_transfer"] = torch.stack(losses).mean()
        return terms

    def weighted(self, terms: dict[str, Tensor]) -> Tensor:
        """The sum of `terms()` by their weights."""
        weights = {"activation_boundary": self.boundary_weight, "attention_transfer": self.attention_weight}
        return torch.stack([weights[name] * value for name, value in terms.items()]).sum()


def _resized(features: Tensor, like: Tensor) -> Tensor:
    if features.shape[2:] == like.shape[2:]:
        return features
    return F.interpolate(features.float(), like.shape[2:], mode="bilinear", align_corners=False)
