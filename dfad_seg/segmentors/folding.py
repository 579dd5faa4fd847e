"""Folding the BatchNorm layers of a frozen network into the convolutions before them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from dfad_seg.common.modules import hooked


def fold_batch_norm(module: nn.Module, run: Callable[[], Any]) -> int:
    """Fold, in place, every BatchNorm2d in evaluation mode whose input is the answer of one convolution alone.

    y = γ (w ⋆ x + b − μ) / √(σ² + ε) + β is itself a convolution of x, with other weights. Which pairs there are is
    seen in one forward pass, which `run` makes without gradients: the BatchNorm receives the very tensor that the
    convolution made, nothing else uses that tensor, and each of the two is called once. Each folded convolution is
    compared on that pass's input: one that makes its weights anew while it runs stays as it is.

    Returns:
        How many were folded. The BatchNorm layers become identities, or what else they did (timm's have an activation).
    """
    folded = 0
    for conv, norm, seen, answer in _find_pairs(module, run):
        names = {child: name for name, child in module.named_modules()}
        together = _fused(conv, norm, seen, answer)
        if together is None:
            continue
        module.set_submodule(names[conv], together)
        module.set_submodule(names[norm], _remainder(norm))
        folded += 1
    return folded


def _fused(conv: nn.Conv2d, norm: nn.BatchNorm2d, seen: Tensor, answer: Tensor) -> nn.Conv2d | None:
    """The two as one convolution, in its own class; None where that would make something else of `seen`."""
    try:
        if parametrize.is_parametrized(conv):
            return None
        together = fuse_conv_bn_eval(conv, norm)
        statistics = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        expected = F.batch_norm(answer, *statistics, False, 0.0, norm.eps)
        same = (together(seen) - expected).abs().max() <= 1e-3 * expected.abs().max().clamp_min(1e-6)
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return None
    return together if same else None


def _find_pairs(module: nn.Module, run: Callable[[], Any]) -> list[tuple[nn.Conv2d, nn.BatchNorm2d, Tensor, Tensor]]:
    calls: Counter[nn.Module] = Counter()
    # The tensors are kept, so that no identity is used twice.
    answers: dict[int, tuple[nn.Conv2d, Tensor, Tensor]] = {}
    found: list[tuple[nn.Conv2d, nn.BatchNorm2d, Tensor, Tensor]] = []

    def after_conv(_: str, conv: nn.Conv2d, inputs: tuple[Tensor, ...], answer: Tensor) -> None:
        calls[conv] += 1
        answers[id(answer)] = (conv, inputs[0], answer)

    def before_norm(_: str, norm: nn.BatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
        calls[norm] += 1
        if id(inputs[0]) in answers:
            conv, seen, answer = answers[id(inputs[0])]
            found.append((conv, norm, seen, answer))

    named = dict(module.named_modules())
    convolutions = {name: part for name, part in named.items() if isinstance(part, nn.Conv2d)}
    norms = {name: part for name, part in named.items() if isinstance(part, nn.BatchNorm2d)}
    norms = {name: part for name, part in norms.items() if part.running_mean is not None and not part.training}
    with hooked(convolutions, after=after_conv), hooked(norms, before=before_norm), _Uses() as uses:
        run()
    return [pair for pair in found if calls[pair[0]] == calls[pair[1]] == 1 and uses.count[id(pair[3])] == 1]


class _Uses(TorchFunctionMode):
    """Counts how often each tensor is an argument of a computation."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[int] = Counter()
        self.kept: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = func(*args, **(kwargs or {}))
        # What answers no tensor, such as a question for the shape, is no computation.
        if any(isinstance(value, Tensor) for value in tree_leaves(answer)):
            for value in tree_leaves((args, kwargs or {})):
                if isinstance(value, Tensor):
                    self.count[id(value)] += 1
                    self.kept.append(value)
        return answer


def _remainder(norm: nn.BatchNorm2d) -> nn.Module:
    """What a BatchNorm's module does beside normalising: timm's drop and activate."""
    rest = [part for name in ("drop", "act") if isinstance(part := getattr(norm, name, None), nn.Module)]
    rest = [part for part in rest if not isinstance(part, nn.Identity)]
    return rest[0] if len(rest) == 1 else nn.Sequential(*rest) if rest else nn.Identity()
