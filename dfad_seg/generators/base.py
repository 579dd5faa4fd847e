"""What every image generator is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from dfad_seg.common.errors import InputError


class ImageGenerator(nn.Module):
    """`sample(batch, size, rng)` draws latents; `forward(latents)` makes images (N, 3, H, W) in [0, 1] of them.

    Latents are whatever the generator likes: a tensor, or a named tuple of tensors.
    """

    checkpoint_activations: bool = False
    """Set to True, training keeps no activations but computes them again in the backward pass: less memory for one more
    forward pass. Gradients and running statistics are the same."""

    def __call__(self, latents: Any) -> Tensor:
        if not (self.checkpoint_activations and torch.is_grad_enabled()):
            return super().__call__(latents)
        return checkpoint(
            super().__call__, latents, use_reentrant=False, context_fn=lambda: (nullcontext(), _statistics_kept(self))
        )

    def sample(self, batch: int, size: tuple[int, int], rng: torch.Generator) -> Any:
        """Latents of `batch` images of `size` (H, W), from nothing but `rng`, on its device."""
        raise TypeError(f"{type(self).__name__} does not say how to sample latents")

    def forward(self, latents: Any) -> Tensor:
        """Images (N, 3, H, W), float32 in [0, 1]."""
        raise TypeError(f"{type(self).__name__} does not say how to make images")

    def observe(self, latents: Any, labels: Tensor) -> None:
        """See the teacher's answers (N, H, W) on the images of some latents; by default nothing is learnt from them."""

    def aim(self, class_shares: Tensor) -> None:
        """Be told the class shares (C,) that generated images should have, as estimated by now; by default ignored."""

    def renew(self, fresh: ImageGenerator, turn: int = 0) -> list[nn.Parameter]:
        """Start anew from the weights of a `fresh` generator of this kind. What was learnt about the teacher may stay;
        by default nothing does.

        Args:
            fresh: a generator built by the same options.
            turn: number of the restart, from 0, by iterations, so that a resumed run has the same. A generator of
                several parts may renew one of them each time.

        Returns:
            The parameters that are new: optimiser and moving average forget the old ones.
        """
        self.load_state_dict(fresh.state_dict())
        return list(self.parameters())


@contextmanager
def _statistics_kept(network: nn.Module) -> Iterator[None]:
    """BatchNorm in training mode normalises as ever, but does not count the batch a second time."""
    layers = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    before = [(layer.momentum, layer.num_batches_tracked) for layer in layers]
    try:
        for layer in layers:
            # The same operations as in the first pass, or `checkpoint` refuses, but with no weight on this batch.
            layer.momentum = 0.0
            if layer.num_batches_tracked is not None:
                layer.num_batches_tracked = layer.num_batches_tracked.clone()
        yield
    finally:
        for layer, (momentum, count) in zip(layers, before, strict=True):
            layer.momentum, layer.num_batches_tracked = momentum, count


def at_least(name: str, value: Any, least: int) -> None:
    """Check an integer option of a generator; raises InputError."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"generator.{name} is {value!r}; it must be a whole number of at least {least}.")
