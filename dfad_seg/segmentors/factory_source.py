"""Source `factory`: any Python callable that returns a network."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from torch import nn

from dfad_seg.common.errors import InputError, nearest


def build_factory(
    *, num_classes: int, factory: str, kwargs: dict[str, Any] | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """A network from a Python callable.

    Args:
        num_classes: not passed on; put it into `kwargs` under the callable's own name for it.
        factory: "package.module:callable"; modules in the current directory are found too. Importing and
            calling it runs its code.
        kwargs: its keyword arguments.

    Returns:
        The network, or a ready `Segmentor`.

    Raises:
        InputError: an import, attribute or call that fails; a result that is no `torch.nn.Module`.
    """
    module_name, colon, name = str(factory).partition(":")
    if not (module_name and colon and name):
        raise InputError(f"factory = {factory!r}: needed is 'package.module:callable'.")
    if kwargs is not None and not isinstance(kwargs, dict):
        raise InputError(f"kwargs of the factory {factory} is a {type(kwargs).__name__}: a mapping is needed.")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        raise InputError(
            f"factory {factory}: module '{module_name}' cannot be imported ({type(error).__name__}: {error})."
            " Install it, or run from the directory that holds it."
        ) from error
    for part in name.split("."):
        if not hasattr(found, part):
            known = [attribute for attribute in dir(found) if not attribute.startswith("_")]
            raise InputError(f"factory {factory}: '{module_name}' has no '{part}'.{nearest(part, known)}")
        found = getattr(found, part)
    if not callable(found):
        raise InputError(f"factory {factory} is a {type(found).__name__}, not a callable.")
    try:
        network = found(**(kwargs or {}))
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"factory {factory} failed with kwargs {kwargs or {}} ({type(error).__name__}: {error})."
        ) from error
    if not isinstance(network, nn.Module):
        raise InputError(f"factory {factory} returned a {type(network).__name__}; a torch.nn.Module is needed.")
    return network, {}
