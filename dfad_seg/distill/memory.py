"""A memory of generated images, against forgetting and for cheaper student steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class ReplayMemory:
    """A bounded store of generated images, and of the teacher's answers to them if those are to be kept.

    Images are rounded to 8 bits, so one of 128×128 takes 48 KiB. Answers are logits in half precision: 352 KiB at 11
    classes. A full memory replaces images at random places, so that old and new ones lie beside each other. Images of
    different sizes have shelves of their own.

    Args:
        capacity: most images per size, ≥ 1.
        keep_answers: store the teacher's logits beside each image.
    """

    def __init__(self, capacity: int, *, keep_answers: bool = False) -> None:
        self.capacity = capacity
        self.keep_answers = keep_answers
        self._shelves: dict[str, dict[str, Tensor]] = {}

    def count(self, size: tuple[int, int]) -> int:
        """How many images of size (H, W) there are."""
        shelf = self._shelves.get(_name(size))
        return 0 if shelf is None else len(shelf["images"])

    @torch.no_grad()
    def add(self, images: Tensor, teacher_logits: Tensor, rng: torch.Generator) -> None:
        """Remember images (N, 3, H, W) in [0, 1]; the logits (N, C, H, W) are ignored unless answers are kept."""
        new = {"images": (images * 255).round().to(torch.uint8)}
        if self.keep_answers:
            new["answers"] = teacher_logits.to(torch.float16)
        shelf = self._shelves.setdefault(_name(images.shape[-2:]), {name: rows[:0] for name, rows in new.items()})
        free = min(self.capacity - len(shelf["images"]), len(images))
        if free:
            for name, rows in new.items():
                shelf[name] = torch.cat([shelf[name], rows[:free]])
        rest = len(images) - free
        if rest:
            places = torch.randperm(self.capacity, generator=rng, device=rng.device)[:rest]
            for name, rows in new.items():
                shelf[name][places] = rows[free:][: len(places)]

    def sample(self, batch: int, size: tuple[int, int], rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """`batch` different images (N, 3, H, W) in [0, 1] of a size with at least as many, and their kept answers."""
        shelf = self._shelves[_name(size)]
        chosen = torch.randperm(len(shelf["images"]), generator=rng, device=rng.device)[:batch]
        answers = shelf["answers"][chosen].float() if self.keep_answers else None
        return shelf["images"][chosen].float() / 255, answers

    def state_dict(self) -> dict[str, Any]:
        """Everything remembered, by size."""
        return {name: dict(shelf) for name, shelf in self._shelves.items()}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        self._shelves = {name: {part: rows.to(device) for part, rows in shelf.items()} for name, shelf in state.items()}


def _name(size: tuple[int, int] | torch.Size) -> str:
    return f"{size[0]}x{size[1]}"
