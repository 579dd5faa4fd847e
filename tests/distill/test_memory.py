"""The replay memory."""

import pytest
import torch
from shared import rng

from dfad_seg.distill import ReplayMemory


def numbered(first, count, size=(2, 3)):
    """Images whose every pixel is their number / 255."""
    return (torch.arange(first, first + count) / 255.0).view(-1, 1, 1, 1).expand(count, 3, *size)


def numbers(images):
    return sorted((images[:, 0, 0, 0] * 255).round().int().tolist())


def test_returns_what_was_stored_to_eight_bits():
    memory = ReplayMemory(4, keep_logits=True)
    images, logits = torch.rand(4, 3, 5, 6), torch.randn(4, 2, 5, 6)
    memory.add(images, logits, rng())
    back, kept = memory.sample(4, rng())
    order = [int((images - image).abs().amax(dim=(1, 2, 3)).argmin()) for image in back]
    assert sorted(order) == [0, 1, 2, 3]
    assert (back - images[order]).abs().max() <= 0.5 / 255 + 1e-6
    assert torch.allclose(kept, logits[order], atol=2e-3, rtol=1e-3)


def test_never_holds_more_than_its_capacity_and_forgets_at_random():
    memory = ReplayMemory(10)
    for i in range(0, 60, 4):
        memory.add(numbered(i, 4), torch.zeros(4, 1, 2, 3), rng(i))
        assert len(memory) == min(i + 4, 10)
    images, kept = memory.sample(10, rng())
    held = numbers(images)
    assert kept is None
    assert len(set(held)) == 10 and {56, 57, 58, 59} <= set(held)  # the newest batch is there, older ones are mixed
    assert min(held) < 50
    memory.add(numbered(100, 25), torch.zeros(25, 1, 2, 3), rng())  # more than there is room for
    assert len(memory) == 10


@pytest.mark.parametrize("keep", [False, True])
def test_a_saved_memory_is_whole_and_holds_no_empty_room(keep):
    memory, other = (ReplayMemory(1000, keep_logits=keep) for _ in range(2))
    other.load_state_dict(memory.state_dict(), torch.device("cpu"))
    for i in range(0, 12, 4):
        memory.add(numbered(i, 4), torch.randn(4, 2, 2, 3), rng(i))
    state = memory.state_dict()
    assert state["images"].untyped_storage().nbytes() == 12 * 3 * 2 * 3
    other.load_state_dict(state, torch.device("cpu"))
    for memories in (memory, other):
        memories.add(numbered(50, 4), torch.ones(4, 2, 2, 3), rng(9))
    for a, b in zip(memory.sample(6, rng(3)), other.sample(6, rng(3)), strict=True):
        assert (a is None and b is None) or torch.equal(a, b)
