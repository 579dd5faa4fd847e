"""Whether a saved state is of this training, seen before any of it is used.

Fused optimisers look at no shape: a tensor that is too small makes them read beyond its end.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def check_saved(
    saved: Any, fresh: Mapping[str, Any], optimizers: Mapping[str, Optimizer], *, length: int, room: int, channels: int
) -> None:
    """Compare names, shapes, types and values of a saved state with what the same training can have come to.

    Args:
        fresh: the state of the same training before it begins.
        length: iterations of the whole training.
        room, channels: of the replay memory in images, and of each image.

    Raises:
        ValueError: says where they differ. What is no state at all may raise anything else that its parts do.
    """
    sums, counts, shares = (saved["meters"][name] for name in ("sums", "counts", "shares"))
    memory = fresh["memory"]
    if memory is not None:
        memory = [_rows(rows, room, channels) for rows in saved["memory"]] or [{}]
    expected = {
        **fresh,
        "iteration": int(min(max(saved["iteration"], 0), length)),
        "evaluation_pending": bool(saved["evaluation_pending"]),
        "optimizers": {name: _expected(optimizer, saved["optimizers"][name]) for name, optimizer in optimizers.items()},
        "meters": {
            "sums": dict.fromkeys(sums, torch.zeros(())),
            "counts": {name: max(1, int(counts[name])) for name in sums},
            "shares": {name: torch.zeros(1).expand(len(value)) for name, value in shares.items()},
        },
        "memory": memory,
    }
    _check({name: saved[name] for name in expected}, expected, "")


def _expected(optimizer: Optimizer, saved: Any) -> dict[str, Any]:
    """The state of an optimiser after steps on as many parameters as in a saved one; all numbers are the config's, but
    for lr, which is set anew in each iteration."""
    plain = getattr(optimizer, "optimizer", optimizer)  # inside Fabric's wrapper
    group = {key: value for key, value in plain.param_groups[0].items() if key != "params"}
    like = nn.Parameter(torch.zeros(1, 1))
    like.grad = torch.zeros(1, 1)
    kind: Any = type(plain)
    stepped: Optimizer = kind([{"params": [like], **group}])
    stepped.step()
    parameters = dict(enumerate(parameter for group in plain.param_groups for parameter in group["params"]))
    state = {
        place: {
            name: parameters[place] if isinstance(example, Tensor) and example.ndim else example
            for name, example in stepped.state[like].items()
        }
        for place in saved["state"]
    }
    groups = zip(plain.state_dict()["param_groups"], saved["param_groups"], strict=True)
    return {"state": state, "param_groups": [ours | {"lr": float(theirs["lr"])} for ours, theirs in groups]}


def _rows(saved: Any, room: int, channels: int) -> dict[str, Tensor]:
    """Images (N, K, H, W) as bytes, and logits (N, C, H, W) in half precision where they are kept; or nothing yet."""
    if saved == {}:
        return {}
    count, *_, height, width = saved["images"].shape
    count = min(count, room)
    rows = {"images": torch.zeros(1, dtype=torch.uint8).expand(count, channels, height, width)}
    if "logits" in saved:
        rows["logits"] = torch.zeros(1, dtype=torch.float16).expand(count, *saved["logits"].shape[-3:])
    return rows


def _check(saved: Any, expected: Any, where: str) -> None:
    if isinstance(expected, Tensor):
        fits = isinstance(saved, Tensor) and (saved.dtype, saved.layout) == (expected.dtype, torch.strided)
        fits = fits and saved.shape == expected.shape
    elif isinstance(expected, (Mapping, list)):
        pairs = dict(expected) if isinstance(expected, Mapping) else dict(enumerate(expected))
        fits = isinstance(saved, (Mapping, list)) and len(saved) == len(pairs)
        for key, value in pairs.items() if fits else ():
            if isinstance(saved, Mapping) and key not in saved:
                raise ValueError(f"{where or 'the state'} has no {key}")
            _check(saved[key], value, f"{where}.{key}".lstrip("."))
    else:
        fits = type(saved) is type(expected) and saved == expected
    if not fits:
        raise ValueError(f"{where} is of another type, shape or value")
