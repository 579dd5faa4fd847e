"""The replay memory."""

import pytest
import torch

from dfad_seg.distill import ReplayMemory


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def numbered(first, count, size=(2, 3)):
    """Images whose every pixel is their number / 255."""
    return (torch.arange(first, first + count) / 255.0).view(-1, 1, 1, 1).expand(count, 3, *size)


def numbers(images):
    return sorted((images[:, 0, 0, 0] * 255).round().int().tolist())


def test_returns_what_was_stored_to_eight_bits():
    memory = ReplayMemory(4, keep_logits=True)
    images, logits = torch.rand(4, 3, 5, 6), torch.randn(4, 2, 5, 6)
    memory.add(images, logits, rng())
    back, kept = memory.sample(4, (5, 6), rng())
    order = [int((images - image).abs().amax(dim=(1, 2, 3)).argmin()) for image in back]
    assert sorted(order) == [0, 1, 2, 3]
    assert (back - images[order]).abs().max() <= 0.5 / 255 + 1e-6
    assert torch.allclose(kept, logits[order], atol=2e-3, rtol=1e-3)


def test_never_holds_more_than_its_capacity_and_forgets_at_random():
    memory = ReplayMemory(10)
    for i in range(0, 60, 4):
        memory.add(numbered(i, 4), torch.zeros(4, 1, 2, 3), rng(i))
        assert memory.count((2, 3)) == min(i + 4, 10)
    images, kept = memory.sample(10, (2, 3), rng())
    held = numbers(images)
    assert kept is None
    assert len(set(held)) == 10 and {56, 57, 58, 59} <= set(held)  # the newest batch is there, older ones are mixed
    assert min(held) < 50


def test_a_batch_beyond_the_capacity_does_not_overflow():
    memory = ReplayMemory(3)
    memory.add(numbered(0, 8), torch.zeros(8, 1, 2, 3), rng())
    assert memory.count((2, 3)) == 3


def test_sizes_have_shelves_of_their_own():
    memory = ReplayMemory(5)
    memory.add(numbered(0, 3), torch.zeros(3, 1, 2, 3), rng())
    memory.add(numbered(9, 2, (4, 4)), torch.zeros(2, 1, 4, 4), rng())
    assert (memory.count((2, 3)), memory.count((4, 4)), memory.count((3, 2))) == (3, 2, 0)
    assert numbers(memory.sample(2, (4, 4), rng())[0]) == [9, 10]
    memory.forget_others((4, 4))
    assert (memory.count((2, 3)), memory.count((4, 4))) == (0, 2) and list(memory.state_dict()) == ["4x4"]
    memory.add(numbered(0, 3), torch.zeros(3, 1, 2, 3), rng())
    assert memory.count((2, 3)) == 3


@pytest.mark.parametrize("keep", [False, True])
def test_state_round_trip(keep):
    memory, other = ReplayMemory(6, keep_logits=keep), ReplayMemory(6, keep_logits=keep)
    for i in range(0, 12, 4):
        memory.add(numbered(i, 4), torch.randn(4, 2, 2, 3), rng(i))
    other.load_state_dict(memory.state_dict(), torch.device("cpu"))
    for a, b in zip(memory.sample(6, (2, 3), rng(3)), other.sample(6, (2, 3), rng(3)), strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


def test_a_saved_memory_holds_no_empty_room():
    memory = ReplayMemory(1000)
    memory.add(numbered(0, 4), torch.zeros(4, 1, 2, 3), rng())
    (shelf,) = memory.state_dict().values()
    assert shelf["images"].untyped_storage().nbytes() == 4 * 3 * 2 * 3
