"""Masks by one channel, and images of other channels than three, from every source."""

import pytest
import torch
from shared import rng, scripted
from torch import nn

from dfad_seg.common.errors import InputError
from dfad_seg.objectives import ClassShares
from dfad_seg.objectives.class_shares import last_layers
from dfad_seg.segmentors import Segmentor, build_segmentor, load_segmentor, optimize_for_distillation, save_segmentor
from dfad_seg.segmentors.cut import CutOptions, cut
from dfad_seg.segmentors.kinds import pad_to_stride


def grey_mask() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 1, 1))


def grey_tuple() -> nn.Module:
    return Segmentor(grey_mask(), num_classes=2, in_channels=2, output="sigmoid", mean=[0, 0], std=[1, 1])


CONTRACT = {"in_channels": 2, "mean": [0.4, 0.1], "std": [0.2, 0.3], "output": "sigmoid"}
SOURCES = {
    "smp": {"arch": "Unet", "encoder_name": "resnet18", "encoder_depth": 3, "decoder_channels": [16, 8, 8]},
    "torchvision": {"arch": "lraspp_mobilenet_v3_large"},
    "factory": {"factory": f"{__name__}:grey_mask"},
    "torchscript": {"path": "mask.ts", "trust": True},
}


@pytest.mark.parametrize("source", SOURCES)
def test_one_channel_is_two_classes(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if source == "torchscript":
        scripted(grey_mask(), "mask.ts")
    torch.manual_seed(0)
    segmentor = build_segmentor(source, num_classes=2, threshold=0.3, **SOURCES[source], **CONTRACT).eval()
    images = torch.rand(2, 2, 37, 50)
    with torch.no_grad():
        logits = segmentor(images)
        padded = pad_to_stride(images, segmentor.stride)
        mean, std = (torch.tensor(CONTRACT[name]).view(1, 2, 1, 1) for name in ("mean", "std"))
        answer = segmentor.network((padded - mean) / std)
        mask = (answer["out"] if isinstance(answer, dict) else answer).sigmoid()[:, 0, :37, :50]
    assert logits.shape == (2, 2, 37, 50)
    assert torch.equal(logits.argmax(1), (mask > 0.3).long())
    save_segmentor("saved.pt", segmentor)
    again = load_segmentor(tmp_path / "saved.pt", trust=True)
    with torch.no_grad():
        assert torch.equal(again(images), logits)


def test_the_softmax_is_the_sigmoid():
    segmentor = Segmentor(nn.Identity(), num_classes=2, in_channels=1, output="sigmoid", mean=[0], std=[1])
    images = torch.rand(1, 1, 4, 4)
    torch.testing.assert_close(segmentor(images).softmax(1)[:, 1:], images.sigmoid())


def test_a_mask_is_cut_and_its_shares_are_those_of_two_classes():
    torch.manual_seed(0)
    teacher = build_segmentor("smp", num_classes=2, **SOURCES["smp"], **CONTRACT).eval()
    made = cut(teacher, CutOptions(macs=0.6), (32, 48), torch.rand(4, 2, 32, 48))
    assert made.macs_share <= 0.6 and made.student(torch.rand(1, 2, 32, 48)).shape == (1, 2, 32, 48)
    shallow = build_segmentor("factory", num_classes=2, factory=f"{__name__}:grey_mask", **CONTRACT).eval()
    shares, (norm, head) = ClassShares.of(shallow).prior, last_layers(shallow)
    z = torch.randn(20_000, 8, generator=rng())
    expected = ((norm.bias + norm.weight * z).relu() @ head.weight[..., 0, 0].T + head.bias).sigmoid().mean()
    torch.testing.assert_close(shares, torch.stack([1 - expected, expected]).detach())
    fast = optimize_for_distillation(shallow.requires_grad_(False), (32, 48), trainable=False)
    images = torch.rand(1, 2, 32, 48)
    assert fast is not shallow
    torch.testing.assert_close(fast(images), shallow(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("num_classes", "options", "message"),
    [
        (5, {}, r"num_classes is 5\. Set it to 2; heads of several sigmoids \(multi-label\) are not supported"),
        (2, {"threshold": 0.3, "output": None}, "threshold is for a mask by one channel"),
        (2, {"std": [1, 1, 1]}, "std has 3 values for images of 2 channels"),
        (2, {"in_channels": None}, "mean has 2 values for images of 3 channels"),
        (2, {"output": None}, r"network returns logits of shape \(1, 1, .*sigmoid for a mask"),
    ],
)
def test_what_is_refused(num_classes, options, message):
    with pytest.raises(InputError, match=message):
        build_segmentor("factory", num_classes=num_classes, factory=f"{__name__}:grey_mask", **CONTRACT | options)


def test_a_checkpoint_with_the_other_kind_of_head_says_what_to_do(tmp_path):
    options = SOURCES["smp"]
    for given, other, message in (
        ({}, {"output": "sigmoid"}, "head has 1 channels: give output: sigmoid"),
        ({"output": "sigmoid"}, {}, "head has 2 channels: leave out output: sigmoid"),
    ):
        theirs = build_segmentor("smp", num_classes=2, **options, **other)
        torch.save(theirs.network.state_dict(), tmp_path / "theirs.pth")
        with pytest.raises(InputError, match=message):
            build_segmentor("smp", num_classes=2, checkpoint=tmp_path / "theirs.pth", **options, **given)


def test_other_images_are_refused():
    with pytest.raises(InputError, match="images of 2 channels have no usual normalisation: give mean and std"):
        Segmentor(grey_mask(), num_classes=2, in_channels=2, output="sigmoid")
    with pytest.raises(InputError, match=r"shape \(1, 3, 8, 8\). Needed are float images of shape \(N, 2, H, W\)"):
        grey_tuple()(torch.rand(1, 3, 8, 8))
    ready = build_segmentor("factory", num_classes=2, factory=f"{__name__}:grey_tuple", in_channels=2)
    assert ready.in_channels == 2  # said again for the data sets
