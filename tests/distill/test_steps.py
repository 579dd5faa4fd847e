"""The two steps against a transcription of the paper's equations in plain PyTorch, and what they must not touch."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
import toys
from torch import nn
from toys import equal_states

from dfad_seg.distill import batch_norm_mode, generator_step, student_step, supervised_step
from dfad_seg.distill.steps import pooled
from dfad_seg.objectives import FeatureMatching, GeneratorObjective, Interpolation, LogitAdjustment, build_priors
from dfad_seg.objectives.discrepancy import focal_loss, log_mae, mae


def sgd(network):
    return torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)


def adam(network):
    return torch.optim.Adam(network.parameters(), lr=1e-3)


@pytest.fixture
def student():
    return toys.segmentor(0).train()


@pytest.fixture
def teacher():
    return toys.teacher()


@pytest.fixture
def images():
    return torch.rand(4, 3, 16, 16)


def learn(student, teacher, images, *, loss_fn=mae, optimizer=None, **more):
    """One step of the student by the usual optimiser."""
    optimizer = optimizer or sgd(student)
    return student_step(student=student, teacher=teacher, images=images, optimizer=optimizer, loss_fn=loss_fn, **more)


def by_hand(student, loss_of):
    """The same step of a copy of the student, on the loss that `loss_of(copy)` gives; the copy and the loss."""
    plain = copy.deepcopy(student)
    optimizer = sgd(plain)
    loss = loss_of(plain)
    loss.backward()
    optimizer.step()
    return plain, loss.detach()


def plain_dfad_iteration(student, teacher, generator, optimizer_s, optimizer_g, latents):
    """Algorithm 1 of Fang et al. 2019 as one would write it from the text: 5 imitation steps, 1 generation step."""

    def logits(network, images):
        return network.network((images - 0.5) / 0.5)

    for z in latents[:-1]:
        fake = generator(z).detach()
        with torch.no_grad():
            t = logits(teacher, fake)
        loss_s = F.l1_loss(logits(student, fake), t)
        optimizer_s.zero_grad()
        loss_s.backward()
        optimizer_s.step()
    fake = generator(latents[-1])
    loss_g = -torch.log(1 + F.l1_loss(logits(student, fake), logits(teacher, fake)))
    optimizer_g.zero_grad()
    loss_g.backward()
    optimizer_g.step()
    return loss_s.detach(), loss_g.detach()


def test_one_iteration_equals_the_transcription():
    teacher = toys.teacher()
    ours = toys.segmentor(0).train(), toys.generator().train()
    plain = copy.deepcopy(ours)
    latents = [torch.randn(4, 8, generator=torch.Generator().manual_seed(i)) for i in range(6)]
    plain_optimizers = sgd(plain[0]), adam(plain[1])
    optimizers = sgd(ours[0]), adam(ours[1])
    for _ in range(2):  # twice: stale gradients and optimiser state would show in the second
        loss_s, loss_g = plain_dfad_iteration(plain[0], teacher, plain[1], *plain_optimizers, latents)
        for z in latents[:-1]:
            with torch.no_grad():
                images = ours[1](z)
            result = student_step(student=ours[0], teacher=teacher, images=images, optimizer=optimizers[0], loss_fn=mae)
        moved = generator_step(
            generator=ours[1],
            student=ours[0],
            teacher=teacher,
            latents=latents[-1],
            optimizer=optimizers[1],
            objective=GeneratorObjective(log_mae),
        )
        assert torch.equal(result.loss, loss_s)
        torch.testing.assert_close(moved.loss, loss_g, rtol=1e-6, atol=0)
    torch.testing.assert_close(ours[0].state_dict(), plain[0].state_dict(), rtol=0, atol=1e-6)
    torch.testing.assert_close(ours[1].state_dict(), plain[1].state_dict(), rtol=0, atol=1e-6)


def test_student_step_touches_neither_teacher_nor_generator(student, teacher):
    generator, before, seen = toys.generator().train(), copy.deepcopy(teacher), []

    def spy(student_logits, teacher_logits):
        seen.append((student_logits.requires_grad, teacher_logits.requires_grad, teacher_logits.grad_fn))
        return mae(student_logits, teacher_logits)

    # Images with a graph, as a careless caller might pass them.
    learn(student, teacher, generator(torch.randn(4, 8)), loss_fn=spy)
    assert equal_states(teacher, before) and seen == [(True, False, None)]
    assert all(p.grad is None for network in (teacher, generator) for p in network.parameters())


def move(student, teacher, objective, **options):
    generator = toys.generator().train()
    players = {"generator": generator, "student": student, "teacher": teacher, "optimizer": adam(generator)}
    return generator_step(latents=torch.randn(4, 8), objective=objective, **players, **options)


@pytest.mark.parametrize(("mode", "changes"), [("update", True), ("batch", False), ("running", False)])
def test_generator_step_leaves_the_student_its_parameters_gradients_and_as_told_its_statistics(
    student, teacher, mode, changes
):
    for parameter in student.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = copy.deepcopy(student.state_dict())
    move(student, teacher, GeneratorObjective(log_mae), student_norm=mode)
    changed = {name for name, value in student.state_dict().items() if not torch.equal(value, before[name])}
    statistics = {f"network.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert changed == (statistics if changes else set())
    for parameter in student.parameters():
        assert torch.equal(parameter.grad, torch.ones_like(parameter)), "a gradient leaked into the student"
        assert parameter.requires_grad
    assert all(p.grad is None for p in teacher.parameters()) and all(m.training for m in student.modules())


def test_without_an_adversary_the_student_is_not_asked(student, teacher):
    before, priors = copy.deepcopy(student), build_priors({"one_hot": 2.0}, teacher)
    result = move(student, teacher, GeneratorObjective(log_mae, adversarial_weight=0, priors=priors))
    assert result.meters.keys() == {"one_hot"} and equal_states(student, before)
    assert result.loss.item() == pytest.approx(2 * result.meters["one_hot"].item())


def test_clipping_bounds_the_update(student, teacher, images):
    before, optimizer = copy.deepcopy(student), torch.optim.SGD(student.parameters(), lr=1.0)
    learn(student, teacher, images, loss_fn=lambda s, t: 1000 * mae(s, t), optimizer=optimizer, clip_norm=0.01)
    moved = [(p - q).flatten() for p, q in zip(student.parameters(), before.parameters(), strict=True)]
    assert torch.cat(moved).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_interpolated_student_step_is_one_optimiser_step_on_the_virtual_batch(student, teacher, images):
    interpolation = Interpolation(share=0.5)
    with torch.no_grad():
        logits = teacher(images)
        shown, targets = interpolation(images, logits, torch.Generator().manual_seed(1))
    plain, loss = by_hand(student, lambda network: mae(network(shown), targets))
    rng = torch.Generator().manual_seed(1)
    result = learn(student, teacher, images, interpolation=interpolation, rng=rng)
    assert torch.equal(result.logits, logits) and torch.equal(result.loss, loss)
    assert equal_states(student, plain)


def test_pooled_logits_are_the_means_of_squares():
    logits = torch.randn(2, 3, 5, 8)
    result = pooled(logits, 2)
    assert result.shape == (2, 3, 3, 4)
    torch.testing.assert_close(result[1, 2, 1, 3], logits[1, 2, 2:4, 6:8].mean())
    torch.testing.assert_close(result[:, :, 2, 0], logits[:, :, 4, :2].mean(dim=2))  # what is left of a square


def test_pooling_student_step_is_one_optimiser_step_on_pooled_logits(student, teacher, images):
    known = pooled(teacher(images), 4)
    plain, _ = by_hand(student, lambda network: mae(F.avg_pool2d(network(images), 4), known))
    result = learn(student, teacher, images, pooling=4)
    assert equal_states(student, plain)
    torch.testing.assert_close(result.logits, known)
    # Known logits come pooled already.
    assert learn(student, None, images, teacher_logits=known, pooling=4).logits is known


def test_regularised_student_step_adds_the_weighted_term(student, teacher, images):
    features = FeatureMatching(0.5, teacher=teacher, student=student, image_size=toys.SIZE)
    before, plain = copy.deepcopy(features.connectors), copy.deepcopy(student)
    optimizer = sgd(torch.nn.ModuleList([student, features.connectors]))
    result = learn(student, teacher, images, optimizer=optimizer, features=features)
    expected = learn(plain, teacher, images).loss + 0.5 * result.meters["activation_boundary"]
    torch.testing.assert_close(result.loss, expected)
    assert not equal_states(features.connectors, before) and not equal_states(student, plain)


def test_supervised_step_is_one_optimiser_step_on_the_loss(student, images):
    labels = torch.randint(0, 3, (4, 16, 16))
    plain, _ = by_hand(student, lambda network: F.cross_entropy(network.network((images - 0.5) / 0.5), labels))
    loss_fn = partial(focal_loss, gamma=0)
    supervised_step(model=student, images=images, labels=labels, optimizer=sgd(student), loss_fn=loss_fn)
    torch.testing.assert_close(student.state_dict(), plain.state_dict(), rtol=0, atol=1e-7)


def test_student_step_compares_the_adjusted_student_with_the_teachers_logits(student, teacher, images):
    adjustment, seen = LogitAdjustment(toys.CLASSES, strength=2.0), []
    adjustment.observe(teacher(images) * 5)
    said = copy.deepcopy(student)(images).detach()

    def spy(student_logits, targets):
        seen.extend([student_logits.detach(), targets])
        return mae(student_logits, targets)

    result = learn(student, teacher, images, loss_fn=spy, adjustment=adjustment)
    with torch.no_grad():
        torch.testing.assert_close(seen[0], adjustment(said))
        torch.testing.assert_close(seen[1], teacher(images))
        torch.testing.assert_close(result.logits, teacher(images))
    # The meters are of the student as it is.
    own = (said.argmax(dim=1) == seen[1].argmax(dim=1)).float().mean().item()
    shifted = (seen[0].argmax(dim=1) == seen[1].argmax(dim=1)).float().mean().item()
    assert result.meters["agreement"].item() == pytest.approx(own) != pytest.approx(shifted, abs=0.05)
    assert result.meters["logit_peak"].item() == pytest.approx(said.abs().max().item())


def test_modes_normalise_by_what_they_say():
    norm = nn.BatchNorm2d(2)
    norm.running_mean += 5
    x = torch.randn(4, 2, 3, 3)
    by_batch = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), keepdim=True, correction=0) + norm.eps).sqrt()
    by_running = (x - 5) / (1 + norm.eps) ** 0.5
    for mode, expected in (("batch", by_batch), ("running", by_running), ("update", by_batch)):
        with batch_norm_mode(norm, mode):
            torch.testing.assert_close(norm(x), expected)
        assert norm.training and norm.track_running_stats
    assert norm.num_batches_tracked == 1


def test_modes_are_undone_after_an_error_and_leave_frozen_layers_alone():
    network = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2).eval())
    with pytest.raises(RuntimeError, match="boom"), batch_norm_mode(network, "running"):
        assert not network[0].training
        raise RuntimeError("boom")
    assert network[0].training and not network[1].training
