"""Activation regularisers against loops, and the layers that they are applied to."""

import pytest
import torch
from torch import nn

from dfad_seg.common.errors import InputError
from dfad_seg.objectives import FeatureMatching
from dfad_seg.objectives.features import activation_boundary, watch_layers
from dfad_seg.segmentors import build_segmentor, freeze

SIZE = (32, 48)


class Toy(nn.Module):
    """Strides 2, 4, 8 and a decoder back at stride 4."""

    def __init__(self, width=4, inplace=True):
        super().__init__()
        stages = [
            nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.BatchNorm2d(b), nn.ReLU(inplace=inplace))
            for a, b in ((3, width), (width, 2 * width), (2 * width, 3 * width))
        ]
        decoder = nn.Sequential(nn.ConvTranspose2d(3 * width, 5, 2, stride=2), nn.ReLU(inplace=inplace))
        self.parts = nn.ModuleDict({"encoder": nn.Sequential(*stages), "decoder": decoder})

    def forward(self, images):
        return self.parts["decoder"](self.parts["encoder"](images))


def matching(weight=1.0):
    torch.manual_seed(0)
    teacher, student = Toy(width=4).eval().requires_grad_(False), Toy(width=2, inplace=False)
    return teacher, student, FeatureMatching(weight, teacher=teacher, student=student, image_size=SIZE)


def test_activation_boundary_against_the_papers_two_cases():
    s, t = torch.randn(2, 3, 4, 5) * 2, torch.randn(2, 3, 4, 5)
    for margin in (0.5, 1.0):
        total = 0.0
        for a, b in zip(s.flatten().tolist(), t.flatten().tolist(), strict=True):
            if a > -margin and b <= 0:
                total += (a + margin) ** 2
            elif a <= margin and b > 0:
                total += (a - margin) ** 2
        assert activation_boundary(s, t, margin=margin).item() == pytest.approx(total / s.numel(), rel=1e-5)


def test_default_layers_are_the_deepest_of_the_encoder():
    _, _, features = matching()
    assert features.pairs == [("parts.encoder.2.2", "parts.encoder.2.2")]
    [connector] = features.connectors.layers
    assert (connector[0].in_channels, connector[0].out_channels) == (6, 12)


def test_watched_features_are_those_before_the_activation():
    toy, images = Toy(), torch.rand(2, 3, *SIZE)
    with watch_layers(toy, ["parts.encoder.2.2"]) as seen:
        toy(images)
    assert seen["parts.encoder.2.2"].min() < 0, "an in-place activation overwrote its input"
    assert not toy.parts["encoder"][2][2]._forward_pre_hooks


def test_the_loss_reaches_student_and_connectors_and_not_the_teacher():
    teacher, student, features = matching()
    images = torch.rand(3, 3, *SIZE)
    with features.watch():
        teacher(images), student(images)
    features.loss().backward()
    encoder = student.parts["encoder"]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder[0][0].parameters() if p.dim() > 1)
    assert all(p.grad is not None for p in features.connectors.parameters())
    assert all(p.grad is None for p in teacher.parameters())
    with pytest.raises(RuntimeError, match="watched"):
        features.loss()


def test_only_the_samples_that_both_saw_are_compared():
    teacher, student, features = matching()
    images = torch.rand(4, 3, *SIZE)
    other = torch.cat([images[:2], torch.rand(2, 3, *SIZE)])
    student.eval()
    with features.watch():
        teacher(images), student(other)
    partial = features.loss(2)
    with features.watch():
        teacher(images[:2]), student(images[:2])
    assert partial.item() == pytest.approx(features.loss().item(), rel=1e-5)


def test_networks_that_hide_their_layers_are_refused():
    opaque = torch.jit.trace(Toy().eval(), torch.rand(1, 3, *SIZE))
    plain = nn.Sequential(nn.Conv2d(3, 4, 3))
    for role, networks in (("teacher", (opaque, Toy())), ("student", (Toy(), plain))):
        with pytest.raises(InputError, match=f"hidden layers of the {role}, and none was found"):
            FeatureMatching(1.0, teacher=networks[0], student=networks[1], image_size=SIZE)


@pytest.mark.parametrize(
    "source, options, strides",
    [
        ("smp", {"arch": "DeepLabV3", "encoder_name": "resnet18"}, 1),  # output stride 8
        ("torchvision", {"arch": "deeplabv3_mobilenetv2"}, 2),
    ],
)
def test_supported_families(source, options, strides):
    teacher = freeze(build_segmentor(source, num_classes=3, **options))
    student = build_segmentor(source, num_classes=3, **options).train()
    features = FeatureMatching(1.0, teacher=teacher, student=student, image_size=(64, 64))
    assert len(features.pairs) == strides
