"""How often the teacher's classes occurred in its training data, from its BatchNorm statistics and generated images."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dfad_seg.common.errors import InputError
from dfad_seg.common.modules import evaluating, hooked


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
    """Pixels' worth of the mean over all classes in each class's, for those that are hardly ever predicted."""
    STEPS = 20
    """Of the descent, at each update."""

    def __init__(self, norm: _BatchNorm, prior: Tensor) -> None:
        super().__init__()
        self._norm = [norm]  # in a list, so that the teacher's layer is no part of this module
        self._inputs: list[Tensor] = []
        self.prior = nn.Buffer(prior.clone(), persistent=False)
        self.shares = nn.Buffer(prior.clone())
        self.pixels = nn.Buffer(torch.zeros(len(prior)))
        self.moments = nn.Buffer(torch.zeros(2, len(prior), norm.num_features))

    @classmethod
    def of(cls, teacher: nn.Module) -> "ClassShares":
        """For a teacher of pixels, with `frequencies_in_weights` as the prior. Raises InputError as that does."""
        norm, head = last_layers(teacher)
        as_classes = getattr(teacher, "class_logits", lambda logits: logits)
        return cls(norm, frequencies_in_weights(norm, head, as_classes).to(head.weight.device))

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Record the teacher's forward passes within the block, beside those recorded since the last `update`."""
        with hooked({"norm": self._norm[0]}, before=lambda _, __, inputs: self._inputs.append(inputs[0].detach())):
            yield

    @torch.no_grad()
    def update(self, labels: Tensor) -> Tensor:
        """Learn from the recorded passes and the teacher's predictions (N, H, W) there; returns the estimate (C,)."""
        inputs = torch.cat(self._inputs).float()
        self._inputs.clear()
        norm = self._norm[0]
        assert norm.running_mean is not None and norm.running_var is not None
        # In units of the running statistics, (N, P, F): what is looked for has mean 0 and mean square 1.
        scaled = (inputs.flatten(2).transpose(1, 2) - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
        classes = torch.arange(len(self.shares), device=labels.device)
        predicted = (labels.unsqueeze(1) == classes[:, None, None]).float()
        predicted = F.adaptive_avg_pool2d(predicted, (inputs.shape[2], inputs.shape[3])).flatten(2)  # (N, C, P)
        self.pixels.mul_(self.MEMORY).add_(predicted.sum(dim=(0, 2)))
        for total, values in zip(self.moments, (scaled, scaled.square() - 1), strict=True):
            total.mul_(self.MEMORY).add_((predicted @ values).sum(dim=0))
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


@torch.no_grad()
def frequencies_in_weights(norm: nn.BatchNorm2d, head: nn.Conv2d, as_classes: Callable[[Tensor], Tensor]) -> Tensor:
    """An estimate (C,) of the share of each class in the pixels of the training data, on the CPU; sums to 1.

    A trained BatchNorm with weight γ and bias β leaves each of its channels with mean β and standard deviation |γ|
    over the training data. Where the classifier's convolution follows such a layer and a ReLU, its logits for a pixel
    are about W·relu(z) + b with z ~ N(β, γ²), channels taken as independent, and the mean of their softmax is the
    estimate: rough (on a CamVid teacher within a factor of 2 for most classes), and far better than equal shares.
    """
    # On the CPU and from a seed of its own: the same for every rank and device.
    z = torch.randn(20_000, norm.num_features, generator=torch.Generator().manual_seed(0))
    features = (norm.bias.float().cpu() + norm.weight.float().cpu() * z).relu()
    logits = features @ head.weight.float().cpu().sum(dim=(2, 3)).T
    if head.bias is not None:
        logits = logits + head.bias.float().cpu()
    return as_classes(logits).softmax(dim=1).mean(dim=0)


@torch.no_grad()
def last_layers(teacher: nn.Module) -> tuple[nn.BatchNorm2d, nn.Conv2d]:
    """The last BatchNorm of a forward pass, auxiliary heads excepted, and the convolution to the classes after it."""
    called: list[nn.Module] = []
    layers = {n: m for n, m in teacher.named_modules() if isinstance(m, nn.BatchNorm2d | nn.Conv2d) and "aux" not in n}
    # In order of their calls: MMSegmentation's heads create the classifier first.
    with evaluating(teacher), hooked(layers, after=lambda _, layer, *__: called.append(layer)):
        if layers:
            shape = getattr(teacher, "in_channels", 3), *(getattr(teacher, "fixed_size", None) or (64, 64))
            teacher(torch.zeros(1, *shape, device=next(teacher.parameters()).device))
    classes = getattr(teacher, "out_channels", getattr(teacher, "num_classes", None))
    head: nn.Conv2d | None = None
    norm: nn.BatchNorm2d | None = None
    for module in called:
        if isinstance(module, nn.BatchNorm2d):
            norm, head = module, None
        elif isinstance(module, nn.Conv2d) and module.out_channels == classes:
            head = module
    if norm is None or head is None or not norm.affine or head.in_channels != norm.num_features or head.groups != 1:
        raise InputError(
            "class shares are estimated by a network that ends in BatchNorm, an activation and a convolution to its "
            "classes, and this one does not, or hides its layers. Set generator.class_frequencies: uniform."
        )
    return norm, head
