"""Whether a saved state is of this training, seen before any of it is used.

Fused optimisers look at no shape: a tensor that is too small makes them read beyond its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def check_saved(
    saved: Any, fresh: Mapping[str, Any], optimizers: Mapping[str, Optimizer], *, length: int, room: int, channels: int
) -> None:
    """Compare names, shapes and types of a saved state with those of `fresh`, the same training's before it begins.

    Args:
        length: iterations of the whole training.
        room, channels: of the replay memory in images, and of each image.

    Raises:
        ValueError: says where they differ.
    """
    _same_keys(saved, fresh.keys(), "the state", more=True)
    _alike(saved["iteration"], 0, "iteration")
    _require(0 <= saved["iteration"] <= length, "iteration")
    _alike(saved["evaluation_pending"], False, "evaluation_pending")
    _alike(saved["networks"], fresh["networks"], "networks")
    _alike(saved["average"], fresh["average"], "average")
    _same_keys(saved["optimizers"], optimizers.keys(), "optimizers")
    for name, optimizer in optimizers.items():
        _check_optimizer(saved["optimizers"][name], optimizer, f"optimizers.{name}")
    meters = saved["meters"]
    _same_keys(meters, fresh["meters"].keys(), "meters")
    _same_keys(meters["counts"], meters["sums"].keys(), "meters.counts")
    for kind, dimensions in (("sums", 0), ("shares", 1)):
        for name, value in meters[kind].items():
            _require(_is_tensor(value, torch.float32) and value.ndim == dimensions, f"meters.{kind}.{name}")
    _require(all(type(count) is int and count > 0 for count in meters["counts"].values()), "meters.counts")
    _require((saved["memory"] is None) is (fresh["memory"] is None), "memory")
    if saved["memory"] is not None:
        _require(isinstance(saved["memory"], list) and bool(saved["memory"]), "memory")
        for memory in saved["memory"]:
            _check_memory(memory, room, channels)


def _check_optimizer(saved: Any, optimizer: Optimizer, where: str) -> None:
    fresh = optimizer.state_dict()
    _same_keys(saved, ("state", "param_groups"), where)
    _require(len(saved["param_groups"]) == len(fresh["param_groups"]), f"{where}.param_groups")
    for place, (group, ours) in enumerate(zip(saved["param_groups"], fresh["param_groups"], strict=True)):
        _same_keys(group, ours.keys(), f"{where}.param_groups.{place}")
        for key, value in ours.items():
            # All are the config's; lr is set anew in each iteration.
            same = type(group[key]) is type(value) and (key == "lr" or group[key] == value)
            _require(same, f"{where}.param_groups.{place}.{key}")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    expected = _state_of_one(optimizer)
    _require(isinstance(saved["state"], dict), f"{where}.state")
    for place, state in saved["state"].items():
        here = f"{where}.state.{place}"
        _require(type(place) is int and 0 <= place < len(parameters), here)
        _same_keys(state, expected.keys(), here)
        for name, example in expected.items():
            if isinstance(example, Tensor):
                like = parameters[place] if example.ndim else example
                _require(_is_tensor(state[name], like.dtype) and state[name].shape == like.shape, f"{here}.{name}")
            else:
                _alike(state[name], example, f"{here}.{name}")


def _state_of_one(optimizer: Optimizer) -> dict[str, Any]:
    """What such an optimiser remembers of a parameter: here of one with two dimensions, after a step."""
    plain = getattr(optimizer, "optimizer", optimizer)  # inside Fabric's wrapper
    group = {key: value for key, value in plain.param_groups[0].items() if key != "params"}
    parameter = nn.Parameter(torch.zeros(1, 1))
    parameter.grad = torch.zeros(1, 1)
    kind: Any = type(plain)
    made: Optimizer = kind([{"params": [parameter], **group}])
    made.step()
    return dict(made.state[parameter])


def _check_memory(rows: Any, room: int, channels: int) -> None:
    """Images (N, K, H, W) as bytes, and logits (N, C, ...) in half precision where they are kept; or nothing yet."""
    _require(isinstance(rows, dict) and rows.keys() <= {"images", "logits"}, "memory")
    if not rows:
        return
    images = rows.get("images")
    _require(_is_tensor(images, torch.uint8) and images.ndim == 4 and images.shape[1] == channels, "memory.images")
    _require(len(images) <= room, "memory.images")
    logits = rows.get("logits", torch.zeros(len(images), 1, 1, 1, dtype=torch.float16))
    _require(_is_tensor(logits, torch.float16) and logits.ndim == 4 and len(logits) == len(images), "memory.logits")


def _alike(saved: Any, fresh: Any, where: str) -> None:
    if isinstance(fresh, Mapping):
        _same_keys(saved, fresh.keys(), where)
        for key, value in fresh.items():
            _alike(saved[key], value, f"{where}.{key}")
    elif isinstance(fresh, Tensor):
        _require(_is_tensor(saved, fresh.dtype) and saved.shape == fresh.shape, where)
    else:
        _require(type(saved) is type(fresh), where)


def _is_tensor(value: Any, dtype: torch.dtype) -> bool:
    return isinstance(value, Tensor) and value.dtype == dtype and value.layout == torch.strided


def _same_keys(saved: Any, keys: Any, where: str, *, more: bool = False) -> None:
    _require(isinstance(saved, dict), where)
    wrong = set(keys) - saved.keys() if more else set(keys) ^ saved.keys()
    if wrong:
        raise ValueError(f"{where} differs in {', '.join(sorted(map(str, wrong))[:3])}")


def _require(fits: bool, where: str) -> None:
    if not fits:
        raise ValueError(f"{where} is of another type, shape or value")
