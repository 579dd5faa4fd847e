"""Class frequencies read off a network's weights."""

import pytest
import torch
from torch import nn

from dfad_seg.common.errors import InputError
from dfad_seg.segmentors import Segmentor, class_frequencies


def network(seed=0, channels=24, classes=5, kernel=1):
    torch.manual_seed(seed)
    body = nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, classes, kernel, padding=kernel // 2),
    )
    nn.init.normal_(body[1].weight, 1.0, 0.3)
    nn.init.normal_(body[1].bias, 0.0, 0.5)
    nn.init.normal_(body[3].weight, 0.0, 0.4)
    return Segmentor(body, num_classes=classes, mean=(0.5,) * 3, std=(0.5,) * 3)


def test_matches_the_answers_where_the_assumptions_hold():
    """Features that are normal and independent by construction: the estimate is the mean softmax of real answers."""
    segmentor = network()
    body = segmentor.network
    z = torch.randn(50_000, 24, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        features = (body[1].bias + body[1].weight * z).relu()
        expected = body[3](features[:, :, None, None]).softmax(dim=1).mean(dim=(0, 2, 3))
    torch.testing.assert_close(class_frequencies(segmentor), expected, atol=0.01, rtol=0.05)


def test_a_bias_makes_a_class_frequent():
    segmentor = network(kernel=3)
    with torch.no_grad():
        segmentor.network[3].bias[2] += 20
    frequencies = class_frequencies(segmentor)
    assert frequencies.sum().item() == pytest.approx(1, abs=1e-5)
    assert frequencies[2] > 0.9
    assert torch.equal(frequencies, class_frequencies(segmentor))


def test_a_network_without_such_an_end_is_refused():
    plain = Segmentor(nn.Conv2d(3, 5, 1), num_classes=5, mean=(0.5,) * 3, std=(0.5,) * 3)
    with pytest.raises(InputError, match="Set generator.class_frequencies: uniform"):
        class_frequencies(plain)


def test_a_trained_network_knows_how_frequent_its_classes_were():
    """On the head of a network that saw many pixels of one class and few of others, the order comes out."""
    torch.manual_seed(0)
    segmentor = network(channels=32, classes=3)
    optimizer = torch.optim.Adam(segmentor.parameters(), lr=0.02)
    colours = torch.tensor([[0.2, 0.2, 0.8], [0.8, 0.3, 0.2], [0.3, 0.8, 0.3]])
    shares = torch.tensor([0.75, 0.2, 0.05])
    segmentor.train()
    for _ in range(150):
        labels = torch.multinomial(shares, 8 * 64, replacement=True).view(8, 8, 8)
        images = (colours[labels].permute(0, 3, 1, 2) + 0.08 * torch.randn(8, 3, 8, 8)).clamp(0, 1)
        optimizer.zero_grad()
        nn.functional.cross_entropy(segmentor(images), labels).backward()
        optimizer.step()
    estimate = class_frequencies(segmentor)
    assert estimate[0] > estimate[1] > estimate[2]
