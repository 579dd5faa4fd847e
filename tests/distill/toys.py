"""Tiny networks for tests of the method: seconds on one core, with every kind of layer that matters to it."""

import io

import torch
from lightning_fabric import Fabric
from torch import nn

from dfad_seg.generators import DCGANGenerator, DCGANOptions
from dfad_seg.segmentors import Segmentor, freeze

CLASSES = 3
SIZE = (16, 16)


def segmentor(seed: int, width: int = 6, dropout: float = 0.0, channels: int = 3, norm: bool = True) -> Segmentor:
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        nn.BatchNorm2d(width) if norm else nn.Identity(),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Conv2d(width, CLASSES, 3, padding=1),
    )
    halves = (0.5,) * channels
    return Segmentor(network, num_classes=CLASSES, mean=halves, std=halves, in_channels=channels)


def teacher(seed: int = 100, channels: int = 3) -> Segmentor:
    return freeze(segmentor(seed, width=8, channels=channels))


def generator(seed: int = 200, channels: int = 3) -> DCGANGenerator:
    torch.manual_seed(seed)
    return DCGANGenerator(DCGANOptions(latent_dim=8), SIZE, channels)


def fabric():
    return Fabric(accelerator="cpu", devices=1)


def equal_states(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def json_like_copy(state):
    """What a checkpoint file does to a state: tensors are copied at the moment of saving."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)
