"""Source `factory`: any Python callable that returns a network."""

import importlib
import os
import sys
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from dfad_seg.common.errors import InputError, explained, nearest
from dfad_seg.common.modules import evaluating
from dfad_seg.common.values import options
from dfad_seg.segmentors.base import NetworkFailed, Segmentor
from dfad_seg.segmentors.kinds import Network, SourceOptions
from dfad_seg.segmentors.settling import find_sizes


@options
class FactoryOptions(SourceOptions):
    """Any Python callable that returns a network, or a ready `Segmentor`. Importing and calling it runs its code."""

    factory: str
    """`package.module:callable`; modules in the current directory are found too."""
    kwargs: dict[str, Any] | None = None
    """Its keyword arguments. The class count is not passed on: put it here under the callable's own name for it."""


def build_factory(chosen: FactoryOptions, *, num_classes: int) -> Network | Segmentor:
    """A network from a Python callable."""
    factory, kwargs = chosen.factory, chosen.kwargs or {}
    module_name, colon, name = factory.partition(":")
    if not (module_name and colon and name):
        raise InputError(f"factory = {factory!r}: needed is 'package.module:callable'.")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    advice = "Install it, or run from the directory that holds it."
    with explained(f"factory {factory}: module '{module_name}' cannot be imported", advice):
        found: Any = importlib.import_module(module_name)
    for part in name.split("."):
        if not hasattr(found, part):
            known = [attribute for attribute in dir(found) if not attribute.startswith("_")]
            raise InputError(f"factory {factory}: '{module_name}' has no '{part}'.{nearest(part, known)}")
        found = getattr(found, part)
    if not callable(found):
        raise InputError(f"factory {factory} is a {type(found).__name__}, not a callable.")
    with explained(f"factory {factory} failed with kwargs {kwargs}"):
        network = found(**kwargs)
    if not isinstance(network, nn.Module):
        raise InputError(f"factory {factory} returned a {type(network).__name__}; a torch.nn.Module is needed.")
    return network if isinstance(network, Segmentor) else Network(network, settle=lambda made: try_out(made, chosen))


def try_out(segmentor: Segmentor, given: FactoryOptions) -> None:
    """Find the stride of a network, or refuse one whose answer is no logits; one of a single size is left alone."""
    with evaluating(segmentor), torch.no_grad(), torch.random.fork_rng(devices=[]), suppress(NetworkFailed):
        find_sizes(segmentor, "the network", given)
