"""From logits to labels: the first maximum, whatever the layout; and no label for what is not a number."""

import numpy as np
import pytest
import torch

from dfad_seg.common import labels
from dfad_seg.common.errors import InputError
from dfad_seg.common.labels import labels_of
from dfad_seg.evaluation import Inference, evaluate_miou
from dfad_seg.evaluation.meters import Agreement


@pytest.mark.parametrize("layout", ["planes", "channels last", "transposed", "cropped", "bf16"])
@pytest.mark.parametrize("classes", [1, 2, 21, 256, 300])
def test_the_label_is_the_first_maximum(classes, layout, monkeypatch):
    monkeypatch.setattr(labels, "_STRIP", 64)
    rng = torch.Generator().manual_seed(classes)
    scores = torch.randint(-2, 3, (2, classes, 13, 17), generator=rng).float()  # full of ties
    scores[0, 1:, 0, 0] = -torch.inf  # ruled out
    if layout == "channels last":
        scores = scores.contiguous(memory_format=torch.channels_last)
    elif layout == "transposed":
        scores = scores.transpose(2, 3)
    elif layout == "cropped":
        scores = scores[:, :, 2:11, 3:9]
    found = labels_of(scores.bfloat16() if layout == "bf16" else scores)
    assert found.dtype == (torch.uint8 if classes <= 256 else torch.int64)
    assert np.array_equal(found.numpy(), scores.numpy().argmax(1))


def spoilt(value, classes):
    """A sound network's logits, with `value` in one pixel of the second image."""

    def network(images):
        logits = images.clone()
        logits[images.mean(dim=(1, 2, 3)) > 0.5, classes, 1, 2] = value
        return logits

    return network


ALL = slice(None)
MODES = {
    "whole": {},
    "windows": {"crop_size": (4, 4), "crop_stride": (4, 4)},
    "scales": {"scales": (0.5, 1.0)},
    "flip": {"flip": True},
    "windows, scales and flip": {"crop_size": (4, 4), "scales": (1.0, 1.5), "flip": True},
    "bf16": {"precision": "bf16"},
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("value", "classes"), [(torch.nan, 0), (torch.nan, 2), (torch.inf, 1), (torch.inf, ALL), (-torch.inf, ALL)]
)
def test_every_mode_refuses_what_is_not_a_number_and_names_the_image(mode, value, classes):
    images = torch.stack([torch.full((3, 8, 8), 0.2), torch.full((3, 8, 8), 0.9)])
    batch = {"image": images, "mask": torch.zeros(2, 8, 8, dtype=torch.uint8), "name": ["first", "second"]}
    meters = [Agreement(3, lambda seen: seen.labels)]
    inference = Inference(**MODES[mode])
    for more in ([], meters):
        with pytest.raises(InputError, match="logits for image 'second' are nan or infinite at .* Check the network"):
            evaluate_miou(spoilt(value, classes), [batch], num_classes=3, inference=inference, meters=more)
    sound = spoilt(7.0, 1)
    assert evaluate_miou(sound, [batch], num_classes=3, inference=inference).support == (128, 0, 0)
