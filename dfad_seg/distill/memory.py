"""A memory of generated images, against forgetting and for cheaper student steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class ReplayMemory:
    """A bounded store of generated images, and of the teacher's logits of them if those are to be kept.

    Images are rounded to 8 bits, so one of 128×128 takes 48 KiB. Logits are in half precision: 352 KiB at 11 classes.
    The room for all of them is taken when the first come. A full memory replaces images at random places, so
    that old and new ones lie beside each other. Images of different sizes have shelves of their own.

    Args:
        capacity: most images per size, ≥ 1.
        keep_logits: store the teacher's logits beside each image.
    """

    def __init__(self, capacity: int, *, keep_logits: bool = False) -> None:
        self.capacity = capacity
        self.keep_logits = keep_logits
        self._shelves: dict[str, dict[str, Tensor]] = {}  # size: {part: capacity rows}, of which some are filled
        self._counts: dict[str, int] = {}

    def count(self, size: tuple[int, int]) -> int:
        """How many images of size (H, W) there are."""
        return self._counts.get(_name(size), 0)

    @torch.no_grad()
    def add(self, images: Tensor, teacher_logits: Tensor, rng: torch.Generator) -> None:
        """Remember images (N, 3, H, W) in [0, 1]; the logits (N, C, H, W) are ignored unless they are kept."""
        new = {"images": (images * 255).round().to(torch.uint8)}
        if self.keep_logits:
            new["logits"] = teacher_logits.to(torch.float16)
        key = _name(images.shape[-2:])
        shelf = self._shelf(key, new)
        held = self._counts.get(key, 0)
        free = min(self.capacity - held, len(images))
        for name, rows in new.items():
            shelf[name][held : held + free] = rows[:free]
        rest = len(images) - free
        if rest:
            places = torch.randperm(self.capacity, generator=rng, device=rng.device)[:rest]
            for name, rows in new.items():
                shelf[name][places] = rows[free:][: len(places)]
        self._counts[key] = held + free

    def _shelf(self, key: str, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        """The shelf of a size, with room for `capacity` rows like these."""
        if key not in self._shelves:  # all at once: to grow it would be to copy it each time
            self._shelves[key] = {name: part.new_empty(self.capacity, *part.shape[1:]) for name, part in rows.items()}
        return self._shelves[key]

    def sample(self, batch: int, size: tuple[int, int], rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """`batch` different images (N, 3, H, W) in [0, 1] of a size with at least as many, and their kept logits."""
        shelf = self._shelves[_name(size)]
        chosen = torch.randperm(self.count(size), generator=rng, device=rng.device)[:batch]
        logits = shelf["logits"][chosen].float() if self.keep_logits else None
        return shelf["images"][chosen].float() / 255, logits

    def forget_others(self, size: tuple[int, int]) -> None:
        """Forget the images of all sizes but (H, W), and give back their room."""
        for key in self._shelves.keys() - {_name(size)}:
            del self._shelves[key], self._counts[key]

    def state_dict(self) -> dict[str, Any]:
        """Everything remembered, by size."""
        # Copies, as a file would otherwise hold the empty room, too.
        return {
            key: {name: rows[: self._counts[key]].clone() for name, rows in shelf.items()}
            for key, shelf in self._shelves.items()
        }

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        self._shelves, self._counts = {}, {}
        for key, shelf in state.items():
            parts = {name: rows.to(device) for name, rows in shelf.items()}
            count = len(parts["images"])
            for name, rows in self._shelf(key, parts).items():
                rows[:count] = parts[name]
            self._counts[key] = count


def _name(size: tuple[int, int] | torch.Size) -> str:
    return f"{size[0]}x{size[1]}"
