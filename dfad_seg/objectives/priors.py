"""What the generator is asked for beside disagreement: priors that need the frozen teacher alone, no data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dfad_seg.errors import InputError


class BatchNormPrior:
    """How far the teacher's activations on a batch are from its BatchNorm running statistics.

    After DeepInversion (Yin et al. 2020, eq. 4), normalised per channel so that every layer counts alike:
    the mean over layers of  rms_c((μ_c − μ̂_c) / σ_c) + rms_c((σ_c − σ̂_c) / σ_c),  with μ̂, σ̂ the statistics of
    the teacher's trainings set kept in the layer and μ, σ those of the batch. Zero for a batch that looks, layer by
    layer, like the training data.

    Channels whose running variance is vanishing against their layer's median are dead and left out, and so are
    layers that see a single value per image (image pooling branches), whose batch variance says little.

    Raises:
        InputError: the teacher has no BatchNorm with running statistics (an opaque or a LayerNorm network).
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
                "the BatchNorm prior needs a teacher with BatchNorm layers that keep running statistics, and this "
                "teacher has none. Set batch_norm_prior: 0, or load the teacher from its Python class."
            )
        self._terms: list[Tensor] = []

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Record the prior during the teacher's next forward pass; `value()` then returns it."""
        self._terms = []
        handles = [layer.register_forward_pre_hook(self._record) for layer in self.layers.values()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def value(self) -> Tensor:
        """The prior of the forward pass under `watch()`: a scalar with a graph to the images, ≥ 0."""
        if not self._terms:
            raise RuntimeError("no forward pass of the teacher was watched")
        return torch.stack(self._terms).mean()

    def _record(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
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
        self._terms.append(_rms(mean_gap, live) + _rms(sigma_gap, live))


def layout_consistency(teacher_logits: Tensor, layout: Tensor) -> Tensor:
    """Cross-entropy of the teacher's answer (N, C, H, W) against the layout (N, H, W) it should show, in nats."""
    return F.cross_entropy(teacher_logits.float(), layout)


def class_balance(teacher_logits: Tensor, *, floor: float = 0.8) -> Tensor:
    """Hinge on the entropy of the teacher's mean class distribution over the batch.

    max(0, floor − H(p̄) / log C): zero while the classes are spread at least as evenly as `floor` (in [0, 1]),
    positive when the generator collapses onto few classes. A hinge, because real scenes are not uniform either.
    """
    mean = teacher_logits.float().softmax(dim=1).transpose(0, 1).flatten(1).mean(dim=1)
    entropy = -(mean * mean.clamp_min(1e-12).log()).sum() / torch.log(torch.tensor(float(mean.numel())))
    return (floor - entropy).clamp_min(0)


def total_variation(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels of images (N, 3, H, W)."""
    vertical = (images[..., 1:, :] - images[..., :-1, :]).abs().mean()
    horizontal = (images[..., :, 1:] - images[..., :, :-1]).abs().mean()
    return vertical + horizontal


def _rms(x: Tensor, counted: Tensor) -> Tensor:
    # Masked rather than indexed, which would make a GPU's queue wait. The small constant keeps the gradient finite at
    # an exact match.
    mean_square = x.square().masked_fill(~counted, 0).sum() / counted.sum().clamp_min(1)
    return (mean_square + 1e-8).sqrt()
