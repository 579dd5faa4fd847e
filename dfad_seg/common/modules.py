"""Looking into a network, which is afterwards as it was."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn


@contextmanager
def hooked(
    layers: Mapping[str, nn.Module],
    *,
    before: Callable[[str, Any, tuple[Any, ...]], None] | None = None,
    after: Callable[[str, Any, tuple[Any, ...], Any], None] | None = None,
) -> Iterator[None]:
    """Call `before(name, layer, inputs)` and `after(name, layer, inputs, output)` at each call of a layer."""
    handles = []
    for name, layer in layers.items():
        if before is not None:
            handles.append(layer.register_forward_pre_hook(partial(before, name)))
        if after is not None:
            handles.append(layer.register_forward_hook(partial(after, name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def evaluating(network: Any) -> Iterator[None]:
    """Evaluation mode within the block, if it is a module; afterwards each submodule's own former mode."""
    modes = {module: module.training for module in network.modules()} if isinstance(network, nn.Module) else {}
    if modes:
        network.eval()
    try:
        yield
    finally:
        # One by one: .train() would also switch on submodules that were deliberately off.
        for module, mode in modes.items():
            module.training = mode
