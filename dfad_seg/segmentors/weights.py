"""Weights from files: read without running code, fitted strictly, loaded whole or not at all."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dfad_seg.common.errors import InputError
from dfad_seg.common.tensors import read_tensors
from dfad_seg.segmentors.base import Segmentor

# Where training tools put the weights in a larger file, in the order of preference.
_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "network", "student")
# What wrapping modules put before every key: DistributedDataParallel, Lightning and others, Segmentor.
_PREFIXES = ("module.", "model.", "network.")
_COMPILED = "_orig_mod."  # torch.compile; may stand anywhere in a key
# Parts of a classification network that a segmentation encoder leaves out.
_CLASSIFIER_PARTS = ("classifier.", "fc.", "head.", "last_linear.", "conv_head.", "norm_head.")
_SHOWN = 5


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The weights in a checkpoint file, by the network's own key names.

    Unwraps the usual containers (`state_dict`, `model`, `model_state`, `model_state_dict`, `network`,
    `student`) and strips the prefixes that all keys share (`module.`, `model.`, `network.`), and
    `_orig_mod.` anywhere.

    Raises:
        InputError: as `read_tensors`, and if there is no state dict in the file.
    """
    return find_state_dict(read_tensors(path), path)


def find_state_dict(content: Any, path: str | Path) -> dict[str, Tensor]:
    """As `read_state_dict`, for a file's content that was read already; `path` is for the message."""
    found = _unwrap(content)
    if found is None:
        if isinstance(content, Mapping):
            names = [str(key) for key in content][:_SHOWN]
            what = f"a mapping with {', '.join(names)}{', ...' if len(content) > _SHOWN else ''}"
        else:
            what = f"a {type(content).__name__}"
        raise InputError(
            f"checkpoint {path} holds no state dict: it is {what}. Needed is a mapping of names to tensors,"
            f" bare or under one of {', '.join(_WRAPPERS)}."
        )
    return strip_prefixes(found)


def strip_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` without the key prefixes that wrapping modules added.

    Raises:
        InputError: two keys become one.
    """
    plain = {key.replace(_COMPILED, ""): value for key, value in state.items()}
    if len(plain) < len(state):
        twice = next(key for key in state if _COMPILED in key)
        raise InputError(f"keys of the state dict, such as {twice}, are the same but for '{_COMPILED}'. Save it anew.")
    prefix = _shared_prefixes(plain)
    return {key[len(prefix) :]: value for key, value in plain.items()}


def load_weights(segmentor: Segmentor, path: str | Path) -> None:
    """Load a checkpoint file into a segmentor's network, strictly; on an error nothing is loaded.

    A missing `num_batches_tracked` is tolerated, as torch does for files from before it existed.

    Raises:
        InputError: as `read_state_dict`; missing, unexpected and mis-shaped keys (all in one message);
            values that are not finite.
    """
    load_state(segmentor.network, read_state_dict(path), path, num_classes=segmentor.num_classes)


def load_state(
    network: nn.Module, state: Mapping[str, Tensor], path: str | Path, *, num_classes: int | None = None
) -> None:
    """Load `state` (read from `path`) into `network`, strictly; see `load_weights`.

    A network may name, in `unused_weights`, the beginnings of keys that it does without.
    """
    own = network.state_dict()
    prefix = _shared_prefixes(own)  # the network's own names may begin like a wrapper's
    unused = tuple(getattr(network, "unused_weights", ()))
    fitted = {prefix + key: value for key, value in strip_prefixes(state).items()}
    fitted = {key: value for key, value in fitted.items() if not key.startswith(unused)}
    for key, value in own.items():
        if key.endswith("num_batches_tracked"):
            fitted.setdefault(key, value)
    _check_finite(fitted, path)
    problem = _mismatch(own, fitted, path, num_classes)
    if problem and not _accepts(network, fitted):
        raise InputError(problem)
    network.load_state_dict(fitted, strict=True)


def load_encoder(encoder: nn.Module, path: str | Path) -> None:
    """Load a classification network's weights into a segmentation encoder, strictly.

    The classifier's weights are left out; everything else must fit.

    Raises:
        InputError: as `load_weights`.
    """
    own = strip_prefixes(encoder.state_dict())
    state = {
        key: value
        for key, value in read_state_dict(path).items()
        if key in own or not key.startswith(_CLASSIFIER_PARTS)
    }
    # torchvision's mobile networks keep their blocks under `features`; a backbone may hold them directly,
    # and end earlier.
    features = "features."
    if not any(key.startswith(features) for key in own) and all(key.startswith(features) for key in state):
        state = {key[len(features) :]: value for key, value in state.items()}
        blocks = {key.split(".")[0] for key in own}
        state = {key: value for key, value in state.items() if key.split(".")[0] in blocks}
    load_state(encoder, state, path)


def _unwrap(content: Any, depth: int = 3) -> dict[str, Tensor] | None:
    # Containers nest ({"model": {"state_dict": ...}}), but not deeply.
    if depth == 0 or not isinstance(content, Mapping) or not content:
        return None
    if all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()):
        return dict(content)
    inner = (_unwrap(content.get(name), depth - 1) for name in _WRAPPERS)
    return next((found for found in inner if found is not None), None)


def _shared_prefixes(keys: Iterable[str]) -> str:
    # All wrapper prefixes, one after the other, that every key shares.
    keys = list(keys)
    found = ""
    while keys:
        shared = [prefix for prefix in _PREFIXES if all(key.startswith(found + prefix) for key in keys)]
        if not shared:
            break
        found += shared[0]
    return found


def _check_finite(state: Mapping[str, Tensor], path: str | Path) -> None:
    bad = [k for k, v in state.items() if v.is_floating_point() and not torch.isfinite(v).all()]
    if bad:
        raise InputError(
            f"checkpoint {path} has values that are not finite (nan or inf) in {_some(bad)}. The training"
            " that wrote it diverged: take an earlier checkpoint."
        )


def _mismatch(own: Mapping[str, Tensor], state: Mapping[str, Tensor], path: str | Path, num_classes: int | None) -> str:
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    common = [key for key in own if key in state]
    other_shape = [key for key in common if own[key].shape != state[key].shape]
    other_kind = [key for key in common if own[key].is_floating_point() != state[key].is_floating_point()]
    lines = []
    if missing:
        lines.append(f"missing, {len(missing)} of {len(own)}: {_some(missing)}")
    if unexpected:
        lines.append(f"unexpected, {len(unexpected)}: {_some(unexpected)}")
    if other_shape:
        shapes = [f"{k} is {tuple(state[k].shape)}, needed {tuple(own[k].shape)}" for k in other_shape]
        lines.append(f"of another shape, {len(other_shape)}: {_some(shapes, '; ')}")
    if other_kind:
        kinds = [f"{k} is {state[k].dtype}, needed {own[k].dtype}" for k in other_kind]
        lines.append(f"of another number type, {len(other_kind)}: {_some(kinds, '; ')}")
    if not lines:
        return ""
    hint = "It belongs to another architecture or to other options: check them."
    classifier = [
        key
        for key in other_shape
        if own[key].shape[:1] == (num_classes,) and own[key].shape[1:] == state[key].shape[1:]
    ]
    if classifier and classifier == other_shape and len(lines) == 1:
        hint = (
            f"Only the class count differs: the checkpoint has {state[classifier[0]].shape[0]} classes,"
            f" num_classes is {num_classes}."
        )
    return f"checkpoint {path} does not fit the network. " + ". ".join([*lines, hint])


def _accepts(network: nn.Module, state: dict[str, Tensor]) -> bool:
    # Some networks translate the names of older versions while loading (smp does): try on a copy.
    if type(network).load_state_dict is nn.Module.load_state_dict:
        return False
    try:
        copy.deepcopy(network).load_state_dict(dict(state), strict=True)
    except Exception:
        return False
    return True


def _some(items: list[str], separator: str = ", ") -> str:
    return separator.join(items[:_SHOWN]) + (f"{separator}... ({len(items)} in all)" if len(items) > _SHOWN else "")
