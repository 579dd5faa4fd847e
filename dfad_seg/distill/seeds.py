"""Randomness by construction: every iteration of every rank draws from its own stream.

A seed is derived from (run seed, rank, iteration, purpose), so a resumed run continues exactly where the interrupted
one would have been, with no generator state to carry, and no two ranks see the same noise.
"""

import numpy as np
import torch

STREAMS = {"iteration": 0, "preview": 2, "initialisation": 3, "calibration": 4, "rehearsal": 5, "held_out": 6}


def derived_seed(seed: int, rank: int, iteration: int, stream: str = "iteration") -> int:
    """A 63-bit seed for one purpose of one iteration on one rank."""
    sequence = np.random.SeedSequence([seed, rank, iteration, STREAMS[stream]])
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def iteration_rng(
    seed: int, rank: int, iteration: int, device: torch.device | str, stream: str = "iteration"
) -> torch.Generator:
    """A generator on `device` for the latents; also seeds torch's global one, from which dropout draws."""
    value = derived_seed(seed, rank, iteration, stream)
    torch.manual_seed(value)
    return torch.Generator(device=device).manual_seed(value)
