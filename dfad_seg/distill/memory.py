"""A memory of generated images, against forgetting and for cheaper student steps."""

from typing import Any

import torch
from torch import Tensor


class ReplayMemory:
    """A bounded store of generated images of one size, and of the teacher's logits of them if those are to be kept.

    Images are rounded to 8 bits, so one of 128×128 takes 48 KiB. Logits are in half precision: 352 KiB at 11 classes.
    The room for all of them is taken when the first come. A full memory replaces images at random places, so that old
    and new ones lie beside each other. The first images of another size replace all.

    Args:
        capacity: most images, ≥ 1.
        keep_logits: store the teacher's logits beside each image.
    """

    def __init__(self, capacity: int, *, keep_logits: bool = False) -> None:
        self.capacity = capacity
        self.keep_logits = keep_logits
        self._parts: dict[str, Tensor] = {}  # `capacity` rows, of which some are filled
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @torch.no_grad()
    def add(self, images: Tensor, teacher_logits: Tensor, rng: torch.Generator) -> None:
        """Remember images (N, 3, H, W) in [0, 1]; the logits (N, C, H, W) are ignored unless they are kept."""
        new = {"images": (images * 255).round().to(torch.uint8)}
        if self.keep_logits:
            new["logits"] = teacher_logits.to(torch.float16)
        if not self._parts or self._parts["images"].shape[1:] != images.shape[1:]:
            self._make_room(new)
        free = min(self.capacity - self._count, len(images))
        for name, rows in new.items():
            self._parts[name][self._count : self._count + free] = rows[:free]
        if rest := len(images) - free:
            places = torch.randperm(self.capacity, generator=rng, device=rng.device)[:rest]
            for name, rows in new.items():
                self._parts[name][places] = rows[free:][: len(places)]
        self._count += free

    def sample(self, batch: int, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """`batch` different images (N, 3, H, W) in [0, 1], of at least as many, and their kept logits."""
        chosen = torch.randperm(self._count, generator=rng, device=rng.device)[:batch]
        logits = self._parts["logits"][chosen].float() if self.keep_logits else None
        return self._parts["images"][chosen].float() / 255, logits

    def state_dict(self) -> dict[str, Any]:
        """Everything remembered."""
        # Copies, as a file would otherwise hold the empty room, too.
        return {name: rows[: self._count].clone() for name, rows in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        self._parts, self._count = {}, 0
        if state:
            self._make_room(state)
            self._count = len(state["images"])
            for name, rows in self._parts.items():
                self._parts[name] = rows.to(device)
                self._parts[name][: self._count] = state[name].to(device)

    def _make_room(self, rows: dict[str, Tensor]) -> None:
        """Forget everything, and take room for `capacity` rows like these at once: to grow would be to copy often."""
        self._parts = {name: part.new_empty(self.capacity, *part.shape[1:]) for name, part in rows.items()}
        self._count = 0
