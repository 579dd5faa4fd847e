"""What every segmentor does, whatever its source. A new source is one more entry of `CASES`."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dfad_seg.common.errors import InputError
from dfad_seg.segmentors import Segmentor, build_segmentor, freeze, state_hash

NUM_CLASSES = 5
PLAIN = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}

CASES: dict[str, dict[str, Any]] = {
    "smp": {"source": "smp", "arch": "deeplabv3plus", "encoder_name": "tu-test_efficientnet"},
    "smp_any_size": {"source": "smp", "arch": "Unet", "encoder_name": "resnet18", "encoder_depth": 3,
                     "decoder_channels": [16, 8, 8]},
    "torchvision": {"source": "torchvision", "arch": "deeplabv3_mobilenetv2"},
    "torchvision_lraspp": {"source": "torchvision", "arch": "lraspp_mobilenet_v3_large"},
    "factory": {"source": "factory", "factory": "torch.nn:Conv2d",
                "kwargs": {"in_channels": 3, "out_channels": NUM_CLASSES, "kernel_size": 4, "stride": 4},
                "stride": 4, **PLAIN},
    "torchscript": {"source": "torchscript", "path": "script", "trust": True, **PLAIN},
    "torchscript_frozen": {"source": "torchscript", "path": "frozen", "trust": True, **PLAIN},
    "torch_export": {"source": "torch_export", "path": "export", "trust": True, "stride": 4, **PLAIN},
}  # fmt: skip

_built: dict[str, Segmentor] = {}


@pytest.fixture(params=list(CASES))
def segmentor(request: pytest.FixtureRequest, opaque: dict[str, Path]) -> Segmentor:
    """A fresh copy of each case, in evaluation mode."""
    name = request.param
    if name not in _built:
        options = dict(CASES[name])
        if "path" in options:
            options["path"] = opaque[options["path"]]
        torch.manual_seed(1)
        _built[name] = build_segmentor(num_classes=NUM_CLASSES, **options).eval()
    return copy.deepcopy(_built[name])


@pytest.mark.parametrize("size", [(17, 33), (45, 60), (64, 64), (1, 1)])
def test_logits_at_the_input_size(segmentor: Segmentor, size: tuple[int, int]) -> None:
    with torch.no_grad():
        logits = segmentor(torch.rand(2, 3, *size))
    assert logits.shape == (2, NUM_CLASSES, *size)
    assert logits.dtype == torch.float32 and torch.isfinite(logits).all()


def test_gradients_reach_the_images(segmentor: Segmentor) -> None:
    freeze(segmentor)
    images = torch.rand(2, 3, 33, 48, requires_grad=True)
    segmentor(images).square().mean().backward()
    assert images.grad is not None and images.grad.abs().amax() > 0
    assert all(parameter.grad is None for parameter in segmentor.parameters())


def test_padding_leaves_the_input_in_place(segmentor: Segmentor) -> None:
    # The same image, padded by hand to the stride: the network must see exactly that.
    images = torch.rand(1, 3, 45, 60)
    padded = nn.functional.pad(images, (0, -60 % segmentor.stride, 0, -45 % segmentor.stride), mode="replicate")
    with torch.no_grad():
        expected = segmentor(padded)[..., :45, :60]
        assert torch.equal(segmentor(images), expected)


def test_frozen_survives_train_calls(segmentor: Segmentor) -> None:
    freeze(segmentor)
    images = torch.rand(2, 3, 32, 48)
    with torch.no_grad():
        before, weights = segmentor(images), state_hash(segmentor)
    holder = nn.ModuleList([segmentor])
    holder.train().requires_grad_(True)
    for module in segmentor.modules():
        try:
            module.train()
        except NotImplementedError:  # exported programs refuse
            pass
    logits = segmentor(images)
    assert not segmentor.train().training
    assert not logits.requires_grad
    assert torch.equal(logits, before)
    assert state_hash(segmentor) == weights
    assert not any(parameter.requires_grad for parameter in segmentor.parameters())


def test_deepcopy_is_independent_and_keeps_frozen(segmentor: Segmentor) -> None:
    keys = list(segmentor.state_dict())
    freeze(segmentor)
    twin = copy.deepcopy(segmentor)
    assert not twin.train().training and list(twin.state_dict()) == keys == list(segmentor.state_dict())
    images = torch.rand(1, 3, 32, 48)
    before = segmentor(images)
    assert torch.equal(twin.train()(images), before)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1.0)
    assert torch.equal(segmentor(images), before)


def test_autocast_and_channels_last_stay_close(segmentor: Segmentor) -> None:
    images = torch.rand(2, 3, 32, 48)
    with torch.no_grad():
        exact = segmentor(images)
        with torch.autocast("cpu", torch.bfloat16):
            logits = segmentor.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    assert logits.dtype == torch.float32
    assert (logits - exact).abs().max() < 0.1 * exact.abs().max() + 0.05


# ---- normalisation, against the plain network called by hand ----


@pytest.mark.parametrize(
    ("order", "scale", "mean", "std"),
    [("rgb", 1, [0.1, 0.2, 0.3], [0.5, 0.25, 2.0]), ("bgr", 255, [103.5, 116.3, 123.7], [57.4, 57.1, 58.4])],
)
def test_normalisation(order: str, scale: int, mean: list[float], std: list[float]) -> None:
    segmentor = Segmentor(nn.Identity(), num_classes=3, mean=mean, std=std, input_scale=scale, channel_order=order)
    images = torch.rand(2, 3, 5, 7)
    # Mean and std are in the network's order: of BGR the first pair belongs to blue.
    planes = [images[:, "rgb".index(colour)] for colour in order]
    expected = [(plane * scale - m) / s for plane, m, s in zip(planes, mean, std, strict=True)]
    torch.testing.assert_close(segmentor(images), torch.stack(expected, 1))


def test_low_resolution_logits_are_resized_bilinearly() -> None:
    network = nn.AvgPool2d(4)
    segmentor = Segmentor(network, num_classes=3, mean=[0, 0, 0], std=[1, 1, 1], stride=4)
    images = torch.rand(1, 3, 8, 12)
    expected = nn.functional.interpolate(network(images), size=(8, 12), mode="bilinear", align_corners=False)
    assert torch.equal(segmentor(images), expected)


# ---- networks that answer in another form ----


class Answers(nn.Module):
    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> Any:
        return self.answer(x)


@pytest.mark.parametrize(
    ("answer", "output"),
    [
        (lambda x: {"out": x, "aux": None}, None),
        (lambda x: {"logits": x}, None),
        (lambda x: {"masks": x}, "masks"),
        (lambda x: (None, x), 1),
        (lambda x: [[x]], lambda answer: answer[0][0]),
    ],
)
def test_output_forms(answer: Any, output: Any) -> None:
    images, plain = torch.rand(1, 3, 4, 4), {"mean": [0, 0, 0], "std": [1, 1, 1]}
    assert torch.equal(Segmentor(Answers(answer), num_classes=3, output=output, **plain)(images), images)


@pytest.mark.parametrize(
    ("answer", "output", "says"),
    [
        (lambda x: (x, x), None, "a tuple of 2"),
        (lambda x: {"masks": x}, None, "'masks'"),
        (lambda x: {"masks": x}, "mask", "output = 'mask' selects no logits"),
        (lambda x: x[:, :2], None, r"\(1, 2, 4, 4\)"),
        (lambda x: x[:, 0], None, r"\(1, 4, 4\)"),
    ],
)
def test_unusable_answers(answer: Any, output: Any, says: str) -> None:
    segmentor = Segmentor(Answers(answer), num_classes=3, output=output)
    with pytest.raises(InputError, match=says):
        segmentor(torch.rand(1, 3, 4, 4))


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (torch.rand(3, 8, 8), r"images\[None\]"),
        (torch.rand(1, 8, 8, 3), "permute"),
        (torch.rand(1, 1, 8, 8), r"\(1, 1, 8, 8\)"),
        (torch.rand(1, 3, 0, 8), r"\(1, 3, 0, 8\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "uint8.*/ 255"),
        ([[1.0]], "list"),
    ],
)
def test_unusable_images(images: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Segmentor(nn.Identity(), num_classes=3)(images)


def unit(mean: float, std: float, scale: float) -> dict[str, Any]:
    return {"mean": [mean] * 3, "std": [std] * 3, "input_scale": scale}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"num_classes": 0}, "num_classes"),
        ({"mean": "imagenet"}, "mean"),
        ({"channel_order": "RGB"}, "channel_order"),
        ({"classes": ["road", "sky"]}, "classes"),
        (unit(123.7, 58.4, 1), "set input_scale to 255"),
        (unit(0.485, 0.229, 255), "set input_scale to 1"),
        (unit(123.7, 0.229, 255), "units of"),
        (unit(float("nan"), 1.0, 1), "finite"),
        (unit(0.5, -0.2, 1), "greater than 0"),
    ],
)
def test_bad_options(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Segmentor(nn.Identity(), **{"num_classes": 3, **options})
