"""The papers' classification form on scikit-learn's bundled digits: the same steps and game, with logits (N, C).

    pip install scikit-learn
    python examples/digits.py --seeds 0 1 2

A small convolutional teacher learns real digits; a student of half its width learns from it without any, once by the
game and once, as a control, on uniform noise. On digits so small noise is nearly enough. A minute per seed on one core.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from dfad_seg import distil
from dfad_seg.distill import DataFree, Game
from dfad_seg.generators import NoiseGenerator, build_generator

SIZE = (16, 16)
TEACHER_EPOCHS = 15
ADAM = {"type": "adam", "lr": 1e-3}


class LeNet(nn.Module):
    """Images (N, 3, 16, 16) in [0, 1] to logits (N, 10); two convolutions and two linear layers, no BatchNorm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, width, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(32 * width, 8 * width), nn.ReLU(), nn.Linear(8 * width, 10))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.encoder(2 * images - 1))


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images (N, 3, 16, 16) and labels (N,): 60 % to train the teacher, 20 % to score; the rest is there to tune on."""
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    images = F.interpolate(images, SIZE, mode="bilinear", align_corners=False).expand(-1, 3, -1, -1)
    train, rest = train_test_split(range(len(labels)), train_size=0.6, stratify=labels, random_state=0)
    _, test = train_test_split(rest, train_size=0.5, stratify=labels[rest], random_state=0)
    targets = torch.tensor(labels)
    return images[train], targets[train], images[test], targets[test]


def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of digits that are named rightly."""
    with torch.no_grad():
        return (network.eval()(images).argmax(dim=1) == labels).float().mean().item()


def train_teacher(images: Tensor, labels: Tensor, seed: int) -> nn.Module:
    """A network trained on labels with cross-entropy, then frozen."""
    torch.manual_seed(seed)
    network = LeNet(16)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(TEACHER_EPOCHS):
        for chosen in torch.randperm(len(labels)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(network(images[chosen]), labels[chosen]).backward()
            optimizer.step()
    return network.eval().requires_grad_(False)


def distilled(teacher: nn.Module, *, seed: int, iterations: int, noise: bool) -> nn.Module:
    """A student of half the teacher's width that has seen no digit."""
    torch.manual_seed(seed + 1)
    student = LeNet(8)
    numbers = {"iterations": iterations, "image_size": SIZE, "student_optimizer": ADAM, "seed": seed}
    numbers["schedule"] = {"type": "step", "every": max(1, iterations * 2 // 3)}
    fabric = Fabric(accelerator="cpu", devices=1)
    if noise:
        return distil(teacher, student, NoiseGenerator(), DataFree.of(**numbers), fabric=fabric)
    generator = build_generator("dcgan", num_classes=10, image_size=SIZE, latent_dim=64, width=8)
    return distil(teacher, student, generator, Game.of(**numbers, generator_optimizer=ADAM), fabric=fabric)


def main(argv: Sequence[str] | None = None) -> dict[str, list[float]]:
    """Print mean and standard deviation of the accuracies on test digits; they are returned as well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of teachers, students and games")
    parser.add_argument("--iterations", type=int, default=300, help="of five student steps and a generator step")
    arguments = parser.parse_args(argv)
    train_images, train_labels, images, labels = digits()
    found: dict[str, list[float]] = {"teacher": [], "dfad": [], "random noise": []}
    for seed in arguments.seeds:
        teacher = train_teacher(train_images, train_labels, seed)
        found["teacher"].append(accuracy(teacher, images, labels))
        for name, noise in (("dfad", False), ("random noise", True)):
            student = distilled(teacher, seed=seed, iterations=arguments.iterations, noise=noise)
            found[name].append(accuracy(student, images, labels))
    for name, values in found.items():
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{name:<14} {statistics.mean(values):.3f} ± {spread:.3f}")
    return found


if __name__ == "__main__":
    main()
