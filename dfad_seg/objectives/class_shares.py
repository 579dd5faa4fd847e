"""How often the teacher's classes occurred in its training data, from its BatchNorm statistics and generated images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class ClassShares(nn.Module):
    """Class shares at which the features of generated images, class by class, have the teacher's running moments.

    Estimating a shift of class frequencies by matching moments, as known from domain adaptation, with the running
    mean μ̂ and variance σ̂² of a late BatchNorm layer in the place of a second data set. Let m_c and v_c be the means of
    its input and of (input − μ̂)² over the pixels of generated images that the teacher gives class c, by channel. Were
    generated pixels of a class like real ones, the shares π of the training data would give Σ_c π_c (m_c − μ̂) / σ̂ = 0
    and Σ_c π_c (v_c / σ̂² − 1) = 0 in every channel. Many channels and few classes: π minimises

        mean ‖Σ_c π_c (m_c − μ̂) / σ̂‖² + w · mean ‖Σ_c π_c (v_c / σ̂² − 1)‖² + τ · KL(π ‖ prior)

    over the simplex, by mirror descent that goes on from the last estimate.

    Args:
        norm: the teacher's last BatchNorm layer before its classifier; it is looked into and not changed.
        prior: (C,) shares to begin with, and to stay with where the images say little; positive, sum to 1.

    Attributes:
        shares: (C,) the estimate.
    """

    MEMORY = 0.97
    """What is left of a batch's sums after each further one."""
    SECOND = 0.25
    """w, the weight of the second moments."""
    PRIOR = 0.01
    """τ, the weight of the prior."""
    SEEN = 30.0
    """Pixels' worth of the mean over all classes in each class's, for those that are hardly ever answered."""
    STEPS = 20
    """Of the descent, at each update."""

    def __init__(self, norm: _BatchNorm, prior: Tensor) -> None:
        super().__init__()
        self._norm = [norm]  # in a list, so that the teacher's layer is no part of this module
        self._inputs: list[Tensor] = []
        self.prior: Tensor
        self.register_buffer("prior", prior.clone(), persistent=False)
        self.shares: Tensor
        self.register_buffer("shares", prior.clone())
        self.pixels: Tensor
        self.register_buffer("pixels", torch.zeros(len(prior)))
        self.moments: Tensor
        self.register_buffer("moments", torch.zeros(2, len(prior), norm.num_features))

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Record the teacher's forward passes within the block, beside those recorded since the last `update`."""
        handle = self._norm[0].register_forward_pre_hook(lambda _, inputs: self._inputs.append(inputs[0].detach()))
        try:
            yield
        finally:
            handle.remove()

    @torch.no_grad()
    def update(self, labels: Tensor) -> Tensor:
        """Learn from the recorded passes and the teacher's answers (N, H, W) in them; returns the new estimate (C,)."""
        passes: list[Tensor] = []
        while sum(map(len, passes)) < len(labels):  # not those of a step that was given up on its way
            passes.insert(0, self._inputs.pop())
        self._inputs.clear()
        inputs = torch.cat(passes).float()
        norm = self._norm[0]
        assert norm.running_mean is not None and norm.running_var is not None
        # In units of the running statistics, (N, P, F): what is looked for has mean 0 and mean square 1.
        scaled = (inputs.flatten(2).transpose(1, 2) - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
        classes = torch.arange(len(self.shares), device=labels.device)
        answered = (labels.unsqueeze(1) == classes[:, None, None]).float()
        answered = F.adaptive_avg_pool2d(answered, (inputs.shape[2], inputs.shape[3])).flatten(2)  # (N, C, P)
        self.pixels.mul_(self.MEMORY).add_(answered.sum(dim=(0, 2)))
        for total, values in zip(self.moments, (scaled, scaled.square() - 1), strict=True):
            total.mul_(self.MEMORY).add_((answered @ values).sum(dim=0))
        self.shares.copy_(self._descend())
        return self.shares

    def _descend(self) -> Tensor:
        overall = self.moments.sum(dim=1, keepdim=True) / self.pixels.sum()
        gaps = (self.moments + self.SEEN * overall) / (self.pixels + self.SEEN).unsqueeze(1)  # (2, C, F)
        first, second = gaps @ gaps.transpose(1, 2) / gaps.shape[2]
        curvature = first + self.SECOND * second  # (C, C): the misfit is π · curvature · π
        rate = 1 / curvature.abs().max()
        pull = rate * self.PRIOR
        shares, prior = self.shares, self.prior.log()
        for _ in range(self.STEPS):
            step = shares.log() - 2 * rate * (curvature @ shares)
            shares = ((step + pull * prior) / (1 + pull)).softmax(dim=0)
        return shares
