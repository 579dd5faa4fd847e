"""Where a network's weights are in a file: in which mapping, and behind which prefix of their names."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dfad_seg.common.errors import InputError, printable
from dfad_seg.segmentors.base import in_words

# What wrapping modules put before every key: DistributedDataParallel, Lightning and others, Segmentor.
_WRAPPERS = re.compile(r"((module|model|network)\.)*")
_COMPILED = "_orig_mod."  # torch.compile; may stand anywhere in a key
# Mappings of tensors that are no weights of a network.
_NO_WEIGHTS = re.compile(r"optim|sched|scaler|callback|loop|rng|extra", re.IGNORECASE)
# The parts by which a segmentation network is known.
_KNOWN_PARTS = ({"encoder", "decoder", "segmentation_head"}, {"backbone", "classifier"}, {"backbone", "decode_head"})


class Place(NamedTuple):
    """Tensors of one mapping whose names begin alike: a candidate for a network's weights."""

    name: str
    """Dotted: the mappings that lead there, then the prefix."""
    state: dict[str, Tensor]
    """By names without the prefix."""
    beside: list[str]
    """Names of the mapping's other tensors."""


def find_state_dict(content: Any, path: str | Path, key: str | None = None) -> dict[str, Tensor]:
    """The weights in a checkpoint by the network's own key names, as far as these are known without the network.

    Args:
        content: of the file, as `read_tensors` gives it; `path` is for messages.
        key: which weights of a file that has several, such as `model_ema`.

    Raises:
        InputError: no weights in the file, or several that `key` does not tell apart.
    """
    groups = _groups(content)
    places = []
    for name, group in groups.items():
        found = {match[1] for k in group if (match := re.match(r"((?:.*?\.)??)(?:encoder|backbone)\.", k))}
        places += [_place(name, group, prefix) for prefix in sorted(found)]
    tops = [{name.split(".")[0] for name in place.state} for place in places]
    places = [place for place, top in zip(places, tops, strict=True) if any(parts <= top for parts in _KNOWN_PARTS)]
    if not places:
        places = [_place(name, group, shared_prefixes(group)) for name, group in groups.items()]
        largest = max((len(place.state) for place in places), default=0)
        places = [place for place in places if len(place.state) == largest or (key and _under(place, key))]
    if not places:
        raise InputError(
            f"checkpoint {path} holds no state dict: it is {in_words(content)}. Needed is a mapping of names to"
            " tensors, bare or in other mappings."
        )
    return choose_place(places, path, key).state


def find_places(content: Any, names: Sequence[str], path: str | Path, key: str | None = None) -> list[Place]:
    """Where a network's names stand in a file's content, those places first that have most of them; at least one."""
    ends = [canonical(name) for name in names[:: max(1, len(names) // 20)]]
    found: list[tuple[int, Place]] = []
    for place, group in _groups(content).items():
        votes: Counter[str] = Counter()
        for name in group:
            spelled = canonical(name)
            votes.update(name[: len(name) - len(end)] for end in ends if spelled == end or spelled.endswith(f".{end}"))
        found += [(count, _place(place, group, prefix)) for prefix, count in votes.items()]
    found.sort(key=lambda pair: -pair[0])
    places = [place for _, place in found] or [Place("", find_state_dict(content, path), [])]
    if key is not None:
        choose_place(places, path, key)
        places = [place for place in places if _under(place, key)]
    return places


def choose_place(places: Sequence[Place], path: str | Path, key: str | None) -> Place:
    """The one place, or the first that `key` names."""
    names = ", ".join(dict.fromkeys(printable(place.name, 60) or "the file itself" for place in places[:5]))
    if key is not None:
        named = [place for place in places if _under(place, key)]
        if not named:
            raise InputError(f"checkpoint {path} has no weights under checkpoint_key '{key}'. It has: {names}.")
        return named[0]
    first = places[0]
    for other in places[1:]:
        if first.state.keys() != other.state.keys() or not all(
            torch.equal(value, other.state[name]) for name, value in first.state.items()
        ):
            raise InputError(
                f"checkpoint {path} holds several weights that could be meant: {names}. Say which with checkpoint_key,"
                f" for example checkpoint_key: {printable(other.name, 60)}."
            )
    return first


def any_prefix(keys: Iterable[str]) -> str:
    """What all keys share up to a dot."""
    shared = os.path.commonprefix(list(keys))
    return shared[: shared.rfind(".") + 1]


def shared_prefixes(keys: Iterable[str]) -> str:
    """Of this the beginning that consists of usual wrappers' prefixes."""
    return _WRAPPERS.match(any_prefix(keys))[0]  # type: ignore[index]


def canonical(name: str) -> str:
    """A name of the same length, alike for timm's two spellings: stages.0, and stages_0 of features_only networks."""
    return re.sub(r"_(?=\d+\.)", ".", name)


def _groups(content: Any) -> dict[str, dict[str, Tensor]]:
    """Every mapping in a file that holds tensors by names, by its dotted place; those of optimisers are left out."""
    found: dict[str, dict[str, Tensor]] = {}
    todo: list[tuple[list[str], Any]] = [([], content)]
    while todo:
        place, node = todo.pop(0)
        if not isinstance(node, Mapping):
            continue
        named = {key: value for key, value in node.items() if isinstance(key, str)}
        tensors = {key.replace(_COMPILED, ""): value for key, value in named.items() if isinstance(value, Tensor)}
        if len(tensors) < sum(isinstance(value, Tensor) for value in named.values()):
            raise InputError(f"a state dict has keys that are the same but for '{_COMPILED}'. Save it anew.")
        if tensors:
            found[".".join(place)] = tensors
        if len(place) < 3:
            todo += [([*place, key], value) for key, value in named.items() if not _NO_WEIGHTS.search(key)]
    return found


def _place(name: str, group: Mapping[str, Tensor], prefix: str) -> Place:
    state = {key[len(prefix) :]: value for key, value in group.items() if key.startswith(prefix)}
    return Place(f"{name}.{prefix}".strip("."), state, [key for key in group if not key.startswith(prefix)])


def _under(place: Place, key: str) -> bool:
    return f".{key}." in f".{place.name}."
