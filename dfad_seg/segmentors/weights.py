"""Weights from files: fitted strictly, loaded whole or not at all."""

import copy
import re
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dfad_seg.common.errors import InputError, some
from dfad_seg.common.tensors import read_tensors
from dfad_seg.segmentors.base import Segmentor
from dfad_seg.segmentors.containers import any_prefix, canonical, choose_place, find_places, shared_prefixes
from dfad_seg.segmentors.saved import described, is_segmentor_file, read_segmentor_file

# Beside a network's own parts, a training module keeps these.
_BESIDE = re.compile(r"loss|criterion|metric|mean|std|weight|averaged|confmat|iou|acc|normal|augment", re.IGNORECASE)


def load_weights(segmentor: Segmentor, path: str | Path, key: str | None = None, *, content: Any = None) -> None:
    """Load a checkpoint file into a segmentor's network, strictly; on an error nothing is loaded.

    What trainers wrap around weights is taken off: mappings, and a prefix that all of the network's own names share.
    What is beside them (losses, metrics) is left out with a warning that names it. A missing `num_batches_tracked` is
    tolerated, as torch does for files from before it existed.

    Args:
        key: which weights of a file that has several, such as `model_ema`.
        content: of the file, if it was read already.

    Raises:
        InputError: as `read_tensors`; missing, unexpected and mis-shaped keys (all in one message); values that are not
            finite; several weights that fit.
    """
    content = read_tensors(path) if content is None else content
    tried = []
    # A module of one's own around the network may give its names any prefix.
    for prefix in dict.fromkeys(find(segmentor.network.state_dict()) for find in (shared_prefixes, any_prefix)):
        names = _Names(segmentor.network, prefix)
        places = find_places(content, list(names.own), path, key)
        fits = [place for place in places if not _mismatch(names.own, names.fitted(place.state)[0], path, None)]
        tried.append((names, fits or places[:1]))
        if fits:
            break
    names, places = tried[-1 if fits else 0]
    if not fits and _translated(segmentor.network, {names.prefix + k: v for k, v in places[0].state.items()}):
        return
    place = choose_place(places, path, None)
    load_state(segmentor.network, place.state, path, num_classes=segmentor.out_channels, prefix=names.prefix)
    left_out = [*place.beside, *names.fitted(place.state)[1]]
    if left_out:
        warnings.warn(f"{path}: left out, as they are not the network's: {some(left_out, 5)}", stacklevel=2)


def _translated(network: nn.Module, state: dict[str, Tensor]) -> bool:
    """Whether the network's own loader took a state of older names, as smp's does."""
    if type(network).load_state_dict is nn.Module.load_state_dict:
        return False
    with suppress(Exception):  # what does not fit is said by whoever asked
        copy.deepcopy(network).load_state_dict(dict(state), strict=True)
        network.load_state_dict(state, strict=True)
        return True
    return False


def load_state(
    network: nn.Module,
    state: Mapping[str, Tensor],
    path: str | Path,
    *,
    num_classes: int | None = None,
    prefix: str | None = None,
) -> None:
    """Load `state` (read from `path`) into `network`, strictly; see `load_weights`.

    A network may name, in `unused_weights`, the beginnings of keys that it does without.

    Args:
        prefix: of the network's names, that those of `state` are without; default: a usual wrapper's, if it has one.
    """
    names = _Names(network, prefix)
    fitted, _ = names.fitted({key.removeprefix(names.prefix): value for key, value in state.items()})
    bad = [k for k, v in fitted.items() if v.is_floating_point() and not torch.isfinite(v).all()]
    if bad:
        raise InputError(
            f"checkpoint {path} has values that are not finite (nan or inf) in {some(bad, 5)}. The training"
            " that wrote it diverged: take an earlier checkpoint."
        )
    problem = _mismatch(names.own, fitted, path, num_classes)
    if problem:
        raise InputError(problem)
    network.load_state_dict({names.prefix + key: value for key, value in fitted.items()}, strict=True)


def load_encoder(encoder: nn.Module, path: str | Path) -> dict[str, Any]:
    """Load the encoder of a classification network's file, or of a segmentor's; errors as of `load_weights`.

    Classifier and decoder, and stages after the encoder's last, are left out; everything else must fit.

    Returns:
        How images were normalised for a segmentor file's weights, as options of `Contract`.
    """
    names, content = _Names(encoder), read_tensors(path)
    spec = read_segmentor_file(path)["spec"] if is_segmentor_file(content) else {}
    what = f"{path}, of a network {described(spec)}," if spec else path
    places = find_places(content, list(names.own), path)
    states = [place._replace(state=names.without_end(names.fitted(place.state)[0])) for place in places]
    fits = [place for place in states if not _mismatch(names.own, place.state, path, None)]
    load_state(encoder, choose_place(fits or states[:1], path, None).state, what)
    return {name: spec[name] for name in ("mean", "std", "input_scale", "channel_order") if name in spec}


class _Names:
    """A network's names for its tensors, and a file's under them.

    Attributes:
        own: the network's state, without a prefix that looks like a wrapper's.
        prefix: this prefix.
    """

    def __init__(self, network: nn.Module, prefix: str | None = None) -> None:
        state = network.state_dict()
        self.prefix = shared_prefixes(state) if prefix is None else prefix
        self.own = {key.removeprefix(self.prefix): value for key, value in state.items()}
        self.unused = tuple(name.removeprefix(self.prefix) for name in getattr(network, "unused_weights", ()))
        self.spelled = {canonical(key): key for key in self.own}
        self.tops = {key.split(".")[0] for key in self.spelled}

    def fitted(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """A file's state under the network's names, and the names of what is a training module's, not the network's."""
        fitted, left_out = {}, []
        for key, value in state.items():
            name = key if key in self.own else self.spelled.get(canonical(key), key)
            if name not in self.own and key.startswith(self.unused):
                continue
            top = canonical(key).split(".")[0]
            if name in self.own or top in self.tops or not _BESIDE.search(top):
                fitted[name] = value
            else:
                left_out.append(key)
        for key, value in self.own.items():
            if key.endswith("num_batches_tracked"):
                fitted.setdefault(key, value)
        return fitted, left_out

    def without_end(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state without what comes after an encoder's end: modules that it has not, the end of its last list."""
        parts = {key: canonical(key).split(".") for key in {**self.own, **state}}
        last: dict[str, int] = {}
        for key in self.own:
            top, index = (*parts[key], "")[:2]
            if index.isdigit():
                last[top] = max(last.get(top, 0), int(index))
        kept = {key: value for key, value in state.items() if key in self.own or parts[key][0] in self.tops}
        after = {
            key
            for key in kept.keys() - self.own.keys()
            if (parts[key][1:2] or [""])[0].isdigit() and int(parts[key][1]) > last.get(parts[key][0], 1 << 30)
        }
        # Another network of the same family is longer in several places.
        if len({parts[key][0] for key in after}) > 1:
            return kept
        return {key: value for key, value in kept.items() if key not in after}


def _mismatch(own: Mapping[str, Tensor], state: Mapping[str, Tensor], path: str | Path, num_classes: int | None) -> str:
    """Why a state does not fit; the empty string where it does."""
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    common = [key for key in own if key in state]
    shapes = [key for key in common if own[key].shape != state[key].shape]
    kinds = [key for key in common if own[key].is_floating_point() != state[key].is_floating_point()]
    told = {
        f"missing, {len(missing)} of {len(own)}": missing,
        f"unexpected, {len(unexpected)}": unexpected,
        f"of another shape, {len(shapes)}": [
            f"{key} is {tuple(state[key].shape)}, needed {tuple(own[key].shape)}" for key in shapes
        ],
        f"of another number type, {len(kinds)}": [
            f"{key} is {state[key].dtype}, needed {own[key].dtype}" for key in kinds
        ],
    }
    lines = [f"{what}: {some(items, 5, '; ')}" for what, items in told.items() if items]
    if not lines:
        return ""
    lines.insert(0, f"checkpoint {path} does not fit the network")
    heads = [key for key in shapes if own[key].shape == (num_classes, *state[key].shape[1:])]
    if len(lines) > 2 or not heads or heads != shapes:
        return ". ".join([*lines, "It belongs to another architecture or to other options: check them."])
    theirs = len(state[heads[0]])
    do = f"Only the class count differs: the checkpoint has {theirs} classes, num_classes is {num_classes}."
    if 1 in (theirs, num_classes):
        change = "give" if theirs == 1 else "leave out"
        do = f"The checkpoint's head has {theirs} channels: {change} output: sigmoid, which is for a mask by one."
    return ". ".join([*lines, do])
