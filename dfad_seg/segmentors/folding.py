"""Folding the BatchNorm layers of a frozen network into the convolutions before them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.nn.utils.parametrize import is_parametrized

from dfad_seg.common.modules import hooked


def fold_batch_norm(module: nn.Module, run: Callable[[], Any]) -> int:
    """Fold, in place, every BatchNorm2d in evaluation mode that is given the very tensor that one convolution made.

    y = γ (w ⋆ x + b − μ) / √(σ² + ε) + β is itself a convolution of x, with other weights. Which pairs there are is
    seen in one forward pass, which `run` makes without gradients. Not seen is what else uses such a tensor, or makes a
    convolution's weights anew while it runs: the network's answers are to be compared afterwards.

    Returns:
        How many were folded. The BatchNorm layers become identities, or what else they did (timm's have an activation).
    """
    made: dict[int, tuple[nn.Conv2d, Tensor, int]] = {}  # the tensors are kept, so that no identity is used twice
    found: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def after_conv(_: str, conv: nn.Conv2d, inputs: tuple[Tensor, ...], answer: Tensor) -> None:
        made[id(answer)] = (conv, answer, answer._version)

    def before_norm(_: str, norm: nn.BatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
        if id(inputs[0]) in made:
            conv, answer, version = made[id(inputs[0])]
            if answer._version == version:  # else an activation has changed it in place
                found.append((conv, norm))

    names = {part: name for name, part in module.named_modules()}
    convolutions = [part for part in names if isinstance(part, nn.Conv2d) and not is_parametrized(part)]
    norms = [part for part in names if isinstance(part, nn.BatchNorm2d) and not part.training]
    with (
        hooked({names[conv]: conv for conv in convolutions}, after=after_conv),
        hooked({names[norm]: norm for norm in norms if norm.running_mean is not None}, before=before_norm),
    ):
        run()
    uses = Counter(part for pair in found for part in pair)
    pairs = [pair for pair in found if uses[pair[0]] == uses[pair[1]] == 1]
    for conv, norm in pairs:
        module.set_submodule(names[conv], fuse_conv_bn_eval(conv, norm))
        module.set_submodule(names[norm], _remainder(norm))
    return len(pairs)


def _remainder(norm: nn.BatchNorm2d) -> nn.Module:
    """What a BatchNorm's module does beside normalising: timm's drop and activate."""
    rest = [part for name in ("drop", "act") if isinstance(part := getattr(norm, name, None), nn.Module)]
    return nn.Sequential(*rest)
