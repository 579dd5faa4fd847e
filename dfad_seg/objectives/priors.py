"""What the generator is asked for: disagreement, and priors that need the frozen teacher alone, no data.

To add a prior, write a function of a `Scene`, or a class that makes one for a teacher, and a line in `PRIORS`.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dfad_seg.common.errors import InputError, choose
from dfad_seg.common.modules import hooked
from dfad_seg.objectives.class_shares import ClassShares
from dfad_seg.objectives.discrepancy import Discrepancy, LogitAdjustment


class Scene(NamedTuple):
    """What a prior may look at: one batch of the generator's step."""

    images: Tensor
    """(N, 3, H, W) in [0, 1], with a graph to the generator."""
    latents: Any
    teacher_logits: Tensor


Prior = Callable[[Scene], Tensor]
"""A scalar. One that looks into the teacher has a method `watch()`, a context that records its next forward pass."""


class BatchNormPrior:
    """How far the teacher's activations on a batch are from its BatchNorm running statistics.

    After DeepInversion (Yin et al. 2020, eq. 4), normalised per channel so that every layer counts alike:
    the mean over layers of  rms_c((μ_c − μ̂_c) / σ̂_c) + rms_c((σ_c − σ̂_c) / σ̂_c),  with μ̂, σ̂ the statistics of
    the teacher's training set kept in the layer and μ, σ those of the batch. Zero for a batch that looks, layer by
    layer, like the training data.

    Channels whose running variance is vanishing against their layer's median are dead and left out, and so are
    layers that see a single value per image (image pooling branches), whose batch variance says little.

    Attributes:
        used: names of the layers that the last watched pass took into the prior.

    Raises:
        InputError: the teacher has no BatchNorm with running statistics (an opaque or a LayerNorm network), or, when
            the prior is called, none that sees more than a value per image.
    """

    DEAD_RATIO = 1e-4  # of the layer's median running variance

    def __init__(self, teacher: nn.Module) -> None:
        self.layers = {
            name: layer
            for name, layer in teacher.named_modules()
            if isinstance(layer, _BatchNorm) and layer.running_mean is not None
        }
        if not self.layers:
            raise InputError(
                "the BatchNorm prior needs a teacher with BatchNorm layers that keep running statistics, and this one "
                "has none that can be reached (TorchScript and torch.export files hide their layers). Leave "
                "it out of priors, or load the teacher from its Python class."
            )
        self.used: list[str] = []
        self._terms: list[Tensor] | None = None

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Record the prior during the teacher's next forward pass."""
        self.used, self._terms = [], []
        with hooked(self.layers, before=self._record):
            yield

    def __call__(self, scene: Scene) -> Tensor:
        """The prior of the forward pass under `watch()`: a scalar with a graph to the images, ≥ 0."""
        assert self._terms is not None, "no forward pass of the teacher was watched"
        if not self._terms:
            raise InputError(
                "the BatchNorm prior leaves out layers that see a single value per image, and the teacher's "
                f"({', '.join(self.layers)}) are all of that kind. Leave it out of priors."
            )
        return torch.stack(self._terms).mean()

    def _record(self, name: str, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert self._terms is not None
        assert isinstance(layer, _BatchNorm) and layer.running_mean is not None and layer.running_var is not None
        x = inputs[0].float()
        if x[0, 0].numel() == 1:
            return
        axes = [d for d in range(x.dim()) if d != 1]
        variance, mean = torch.var_mean(x, dim=axes, correction=0)
        live = layer.running_var > self.DEAD_RATIO * layer.running_var.median()
        sigma = (layer.running_var + layer.eps).sqrt()
        mean_gap = (mean - layer.running_mean) / sigma
        sigma_gap = (variance + layer.eps).sqrt() / sigma - 1
        self.used.append(name)
        self._terms.append(_rms(mean_gap, live) + _rms(sigma_gap, live))


class ActivationMagnitude:
    """−mean |f| of the features that the teacher's classifier sees: DAFL's L_a (Chen et al. 2019, eq. 4).

    On images of its own kind a network's last features are large. The classifier is the last convolution (or linear
    layer) of the teacher with one output channel per class, auxiliary heads excepted. Unlike the other priors this one
    is negative, and has no lower bound.

    Raises:
        InputError: no such layer is found, as in opaque networks.
    """

    def __init__(self, teacher: nn.Module) -> None:
        layers = [layer for name, layer in teacher.named_modules() if "aux" not in name]
        layers = [layer for layer in layers if isinstance(layer, (nn.Conv2d, nn.Linear))]
        outputs = [getattr(layer, "out_channels", getattr(layer, "out_features", None)) for layer in layers]
        classes = getattr(teacher, "num_classes", None)
        heads = [layer for layer, count in zip(layers, outputs, strict=True) if count == classes]
        if not heads:
            raise InputError(
                "activation_magnitude needs the features before the teacher's classifier, and no convolution or "
                "linear layer with one output per class was found in it. Leave it out of priors, or load the teacher "
                "from its Python class."
            )
        self.head = heads[-1]
        self._value: Tensor | None = None

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Record the features during the teacher's next forward pass."""
        self._value = None
        with hooked({"head": self.head}, before=self._record):
            yield

    def _record(self, name: str, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._value = -inputs[0].float().abs().mean()

    def __call__(self, scene: Scene) -> Tensor:
        assert self._value is not None, "no forward pass of the teacher was watched"
        return self._value


def layout_consistency(scene: Scene) -> Tensor:
    """Cross-entropy of the teacher's prediction against the layout (N, H, W) it should show, in nats."""
    layout: Tensor = scene.latents.layout
    return F.cross_entropy(scene.teacher_logits.float(), layout)


def class_balance(scene: Scene) -> Tensor:
    """1 − H(p̄) / log C with p̄ the teacher's mean class distribution over the batch: in [0, 1], 0 where it is uniform.

    DAFL's information entropy loss (Chen et al. 2019, eq. 5) but for scale and offset: it keeps a generator from
    collapsing onto few classes.
    """
    mean = scene.teacher_logits.float().softmax(dim=1).transpose(0, 1).flatten(1).mean(dim=1)
    return 1 + (mean * mean.clamp_min(1e-12).log()).sum() / math.log(mean.numel())


def one_hot(scene: Scene) -> Tensor:
    """Cross-entropy of the teacher's prediction to its own most likely class: DAFL's L_oh (Chen et al. 2019, eq. 3).

    In nats, ≥ 0; small where the teacher is sure.
    """
    return -F.log_softmax(scene.teacher_logits.float(), dim=1).amax(dim=1).mean()


PRIORS: dict[str, Any] = {
    "batch_norm_prior": BatchNormPrior,
    "layout_consistency": layout_consistency,
    "class_balance": class_balance,
    "one_hot": one_hot,
    "activation_magnitude": ActivationMagnitude,
}
"""By name: a `Prior`, or a class of them that is made for a teacher."""


def build_priors(weights: Mapping[str, float], teacher: nn.Module) -> dict[str, tuple[Prior, float]]:
    """The priors of a weight above 0, for `GeneratorObjective`.

    Raises:
        InputError: a name is unknown, or the teacher does not have what a prior needs.
    """
    found = {name: choose(PRIORS, name, "prior") for name in weights}
    wanted = {name: prior for name, prior in found.items() if weights[name]}
    return {n: (prior(teacher) if isinstance(prior, type) else prior, weights[n]) for n, prior in wanted.items()}


def _rms(x: Tensor, counted: Tensor) -> Tensor:
    # Masked rather than indexed, which would make a GPU's queue wait. The small constant keeps the gradient finite at
    # an exact match.
    mean_square = x.square().masked_fill(~counted, 0).sum() / counted.sum().clamp_min(1)
    return (mean_square + 1e-8).sqrt()


@dataclass
class GeneratorObjective:
    """loss_G = −w_a · discrepancy(student, teacher) + Σ w_p · prior_p.

    With the defaults and `discrepancy=log_mae` this is DFAD's −log(1 + MAE) (Fang et al. 2019).
    """

    discrepancy: Discrepancy
    """What the generator maximises."""
    adversarial_weight: float = 1.0
    """w_a, ≥ 0; with 0 the student is not asked."""
    priors: Mapping[str, tuple[Prior, float]] = field(default_factory=dict)
    """By name, each with its weight; see `build_priors`."""
    class_shares: ClassShares | None = None
    """Estimates the class shares of the teacher's training data on the way, for the generator's layouts."""
    adjustment: LogitAdjustment | None = None
    """Of the student's logits, as in its own loss; see `student_step`."""

    def watching(self) -> list[Any]:
        """What here looks into the teacher, whose layers must then stay as they are."""
        parts: list[Any] = [self.class_shares, *(prior for prior, _ in self.priors.values())]
        return [part for part in parts if hasattr(part, "watch")]

    @contextmanager
    def watch_teacher(self) -> Iterator[None]:
        """Wrap the teacher's forward pass, into which some of it looks."""
        with ExitStack() as stack:
            for part in self.watching():
                stack.enter_context(part.watch())
            yield

    def __call__(
        self, *, images: Tensor, latents: Any, student_logits: Tensor | None, teacher_logits: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and its unweighted terms by name: scalars.

        `student_logits` may be None where the adversarial weight is 0: nothing else looks at them.
        """
        scene = Scene(images, latents, teacher_logits)
        terms: dict[str, Tensor] = {}
        loss = images.new_zeros((), dtype=teacher_logits.dtype)
        if self.adversarial_weight:
            assert student_logits is not None, "the discrepancy needs the student's logits"
            if self.adjustment is not None:
                student_logits = self.adjustment(student_logits)
            terms["discrepancy"] = self.discrepancy(student_logits, teacher_logits)
            loss = loss - self.adversarial_weight * terms["discrepancy"]
        for name, (prior, weight) in self.priors.items():
            terms[name] = prior(scene)
            loss = loss + weight * terms[name]
        return loss, terms
