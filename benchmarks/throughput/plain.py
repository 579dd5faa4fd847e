"""Variant (a): the loop of Fang et al. 2019, algorithm 1, as one would write it from the equations, in fp32.

Nothing is frozen, cast or rearranged: the teacher is in evaluation mode and its answer is detached, and that is all. So
the student's step builds the teacher's graph for nothing, and the generator's step computes gradients of the weights
of all three networks, of which it uses one network's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from throughput.pairs import build_pair

Step = Callable[[], None]


def plain_steps(pair: str, batch: int, size: tuple[int, int], device: torch.device) -> tuple[Step, Step]:
    """One student step and one generator step, to be called again and again."""
    teacher, student, generator = (network.to(device) for network in build_pair(pair, size))
    optimizer_s = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    optimizer_g = torch.optim.Adam(generator.parameters(), lr=1e-3)

    def student_step() -> None:
        z = torch.randn(batch, 256, device=device)
        optimizer_s.zero_grad()
        fake = generator(z).detach()
        loss = F.l1_loss(student(fake), teacher(fake).detach())
        loss.backward()
        optimizer_s.step()

    def generator_step() -> None:
        z = torch.randn(batch, 256, device=device)
        optimizer_g.zero_grad()
        fake = generator(z)
        loss = -torch.log(1 + F.l1_loss(student(fake), teacher(fake)))
        loss.backward()
        optimizer_g.step()

    return student_step, generator_step
