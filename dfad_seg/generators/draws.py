"""Random tensors from an explicit source of randomness, on its device."""

from __future__ import annotations

import torch
from torch import Tensor


def uniform(rng: torch.Generator, *shape: int) -> Tensor:
    """Of this shape, from [0, 1)."""
    return torch.rand(*shape, generator=rng, device=rng.device)


def normal(rng: torch.Generator, *shape: int) -> Tensor:
    """Of this shape, from N(0, 1)."""
    return torch.randn(*shape, generator=rng, device=rng.device)
