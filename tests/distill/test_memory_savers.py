"""Gradient accumulation, and what bf16 autocast leaves in fp32."""

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


@pytest.mark.parametrize("parts", [2, 3])
def test_accumulated_student_gradient_is_that_of_the_whole_batch(parts):
    torch.manual_seed(0)
    student, teacher = toys.segmentor(0).eval(), toys.teacher()  # in evaluation mode BatchNorm mixes no images
    images, results = torch.rand(7, 3, 16, 16), []
    for accumulate in (1, parts):
        network = copy.deepcopy(student)
        optimizer = Recorder(network.parameters(), lr=0.1)
        answer = student_step(
            student=network, teacher=teacher, images=images, optimizer=optimizer, loss_fn=mae, accumulate=accumulate
        )
        results.append((optimizer.seen, answer))
    torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(results[1][1], results[0][1])


def test_accumulated_generator_gradient_is_that_of_the_whole_batch():
    torch.manual_seed(0)
    student, teacher = toys.segmentor(0).eval(), toys.teacher()
    generator = LayoutGenerator(LayoutOptions(width=4, scales=2), toys.CLASSES)  # GroupNorm
    latents = generator.sample(5, (16, 16), torch.Generator().manual_seed(1))
    results = []
    for accumulate in (1, 2):
        network = copy.deepcopy(generator)
        optimizer = Recorder(network.parameters(), lr=0.1)
        terms = generator_step(
            generator=network,
            student=student,
            teacher=teacher,
            latents=latents,
            optimizer=optimizer,
            objective=GeneratorObjective(mae, priors=build_priors({"layout_consistency": 0.5}, teacher)),
            accumulate=accumulate,
        )
        results.append((optimizer.seen, terms))
    torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(results[1][1], results[0][1])


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


def test_under_bf16_statistics_and_losses_accumulate_in_fp32():
    torch.manual_seed(0)
    conv, norm = torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4, momentum=1.0)
    seen = []
    norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.autocast("cpu", torch.bfloat16):
        answer = norm(conv(torch.rand(8, 3, 64, 64) + 3))
    assert seen[0].dtype == torch.bfloat16 and norm.running_mean.dtype == torch.float32
    exact = seen[0].double()
    # 30,000 values in a bf16 sum would be off by percents.
    torch.testing.assert_close(norm.running_mean.double(), exact.mean(dim=(0, 2, 3)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(norm.running_var.double(), exact.var(dim=(0, 2, 3)), rtol=1e-4, atol=1e-6)
    loss = mae(answer, torch.zeros_like(answer))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(answer.double().abs().mean().item(), rel=1e-5)
