"""Gradient accumulation."""

import copy

import pytest
import torch
import toys

from dfad_seg.distill import generator_step, student_step
from dfad_seg.generators import LayoutGenerator, LayoutOptions
from dfad_seg.objectives import GeneratorObjective, build_priors
from dfad_seg.objectives.discrepancy import mae


class Recorder(torch.optim.SGD):
    """Keeps the gradients that it was given."""

    def step(self, closure=None):
        self.seen = [p.grad.clone() for group in self.param_groups for p in group["params"]]
        return super().step(closure)


@pytest.mark.parametrize("player", ["student", "generator"])
def test_the_accumulated_gradient_is_that_of_the_whole_batch(player):
    torch.manual_seed(0)
    student, teacher = toys.segmentor(0).eval(), toys.teacher()  # in evaluation mode BatchNorm mixes no images
    generator = LayoutGenerator(LayoutOptions(width=4, scales=2), toys.CLASSES)  # GroupNorm
    latents = generator.sample(7, (16, 16), torch.Generator().manual_seed(1))
    images, results = torch.rand(7, 3, 16, 16), []
    for accumulate in (1, 3):
        network = copy.deepcopy(student if player == "student" else generator)
        optimizer = Recorder(network.parameters(), lr=0.1)
        common = {"teacher": teacher, "optimizer": optimizer, "accumulate": accumulate}
        if player == "student":
            found = student_step(student=network, images=images, loss_fn=mae, **common)
        else:
            objective = GeneratorObjective(mae, priors=build_priors({"layout_consistency": 0.5}, teacher))
            found = generator_step(generator=network, student=student, latents=latents, objective=objective, **common)
        results.append((optimizer.seen, found))
    torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(tuple(results[1][1]), tuple(results[0][1]))


def test_a_batch_smaller_than_its_parts_is_refused():
    student = toys.segmentor(0).train()
    with pytest.raises(ValueError, match="2 cannot be split into 3"):
        student_step(
            student=student,
            teacher=toys.teacher(),
            images=torch.rand(2, 3, 16, 16),
            optimizer=Recorder(student.parameters(), lr=0.1),
            loss_fn=mae,
            accumulate=3,
        )
