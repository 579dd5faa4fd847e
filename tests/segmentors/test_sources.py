"""The sources' own options, and their errors."""

import sys
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from shared import tiny

from dfad_seg.common.errors import InputError
from dfad_seg.segmentors import Segmentor, build_segmentor, count_flops, count_parameters, state_hash
from dfad_seg.segmentors.torchvision_source import deeplabv3_mobilenetv2

PLAIN = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
WHOLE = {"source": "smp", "num_classes": 3, "arch": "Unet", "encoder_name": "resnet18"}
SMALL = {"arch": "DeepLabV3Plus", "encoder_name": "tu-mobilenetv3_small_050"}


def test_smp_is_smp() -> None:
    torch.manual_seed(5)
    ours = build_segmentor("smp", num_classes=3, encoder_output_stride=8, decoder_channels=32, **SMALL)
    torch.manual_seed(5)
    theirs = smp.DeepLabV3Plus(
        "tu-mobilenetv3_small_050", encoder_weights=None, encoder_output_stride=8, decoder_channels=32, classes=3
    )
    assert state_hash(ours) == state_hash(theirs)
    assert ours.stride == 8


@pytest.mark.parametrize("source", ["smp", "torchvision"])
def test_encoder_from_a_classification_network(source: str, tmp_path: Path) -> None:
    from torchvision.models import mobilenet_v2

    torch.manual_seed(11)
    classifier = mobilenet_v2()
    torch.save(classifier.state_dict(), tmp_path / "encoder.pth")
    smp_arch = {"arch": "DeepLabV3Plus", "encoder_name": "mobilenet_v2"}
    arch = smp_arch if source == "smp" else {"arch": "deeplabv3_mobilenetv2"}
    torch.manual_seed(0)
    network = build_segmentor(source, num_classes=3, encoder_checkpoint=tmp_path / "encoder.pth", **arch).network
    blocks = network.encoder.features if source == "smp" else network.backbone
    stem, last = (blocks[0], blocks[17]) if source == "smp" else (blocks["0"], blocks["17"])
    assert torch.equal(stem[0].weight, classifier.features[0][0].weight)
    assert torch.equal(last.conv[2].weight, classifier.features[17].conv[2].weight)


def test_paper_student_output_stride() -> None:
    images = torch.rand(1, 3, 64, 96)
    for stride in (8, 16):
        network = deeplabv3_mobilenetv2(11, output_stride=stride).eval()
        with torch.no_grad():
            assert network.backbone(images)["out"].shape == (1, 320, 64 // stride, 96 // stride)
            assert network(images)["out"].shape == (1, 11, 64, 96)
        dilations = [m.dilation[0] for m in network.backbone.modules() if getattr(m, "groups", 1) > 1]
        # 17 depthwise convolutions; the strided ones are the 2nd, 4th, 7th and 14th.
        assert dilations == ([1] * 7 + [2] * 7 + [4] * 3 if stride == 8 else [1] * 14 + [2] * 3)
    with pytest.raises(InputError, match="8 or 16"):
        build_segmentor("torchvision", num_classes=2, arch="deeplabv3_mobilenetv2", output_stride=32)


# ---- factory ----


FACTORY = """
import torch
from torch import Tensor, nn
from dfad_seg.segmentors import Segmentor

def network(classes, width=4):
    return nn.Sequential(nn.Conv2d(3, width, 1), nn.Conv2d(width, classes, 1))

class Halved(nn.Conv2d):  # as a U-Net that halves the image three times
    def forward(self, images):
        return super().forward(images).unflatten(-1, (-1, 8)).flatten(-2)

def segmentor(classes):
    return Segmentor(network(classes), num_classes=classes, stride=2)

def fails():
    raise RuntimeError("no such weights")
"""


@pytest.fixture
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module in the current directory."""
    (tmp_path / "my_factory_module.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    monkeypatch.delitem(sys.modules, "my_factory_module", raising=False)
    return "my_factory_module"


def test_factory(factory: str) -> None:
    built = build_segmentor(
        "factory", num_classes=3, factory=f"{factory}:network", kwargs={"classes": 3, "width": 7}, **PLAIN
    )
    assert built.network[0].out_channels == 7
    assert built(torch.rand(1, 3, 5, 5)).shape == (1, 3, 5, 5)
    kwargs = {"in_channels": 3, "out_channels": 3, "kernel_size": 1}
    assert build_segmentor("factory", num_classes=3, factory=f"{factory}:Halved", kwargs=kwargs, **PLAIN).stride == 8
    ready = build_segmentor("factory", num_classes=3, factory=f"{factory}:segmentor", kwargs={"classes": 3})
    assert ready.stride == 2 and not isinstance(ready.network, Segmentor)
    for name, classes, more, says in (
        (f"{factory}:networks", {}, PLAIN, "Did you mean 'network'"),
        (f"{factory}:fails", {}, PLAIN, "no such weights"),
        (f"{factory}:network", {"classes": 3}, {}, "mean and std"),
        (f"{factory}:segmentor", {"classes": 4}, {}, "4 classes"),
        (f"{factory}:segmentor", {"classes": 3}, PLAIN, "'mean' would be ignored"),
        ("no_such_module_here:f", {}, PLAIN, "cannot be imported"),
    ):
        with pytest.raises(InputError, match=says):
            build_segmentor("factory", num_classes=3, factory=name, kwargs=classes, **more)


# ---- names ----


@pytest.mark.parametrize(
    ("source", "options", "says"),
    [
        ("spm", {}, "Did you mean 'smp'"),
        ("smp", {"arch": "Unet", "encoder_name": "mobilenetv3_small_100"}, "'tu-mobilenetv3_small_100'"),
        ("smp", {"arch": "Unet", "encoder_options": {"bn_eps": 0.1}}, "timm encoder"),
        ("smp", {"arch": "Unet", "decoder_channels": [10**9]}, "decoder_channels"),
        ("smp", {"arch": "FPN", "decoder_channels": 8}, "arch FPN has no option 'decoder_channels'"),
        ("torchvision", {"arch": "deeplabv3_resnet5"}, "Did you mean 'deeplabv3_resnet50'"),
        ("torchvision", {"arch": "lraspp_mobilenet_v3_large", "output_stride": 8}, "no option 'output_stride'"),
        ("torchvision", {"arch": "deeplabv3_mobilenetv2", "encoder_weights": "coco"}, "'imagenet'"),
        ("cut", {"of": WHOLE, "widths": {"encoder.nothing": [8, 3]}}, "has the layer 'encoder.nothing'"),
        ("cut", {"of": WHOLE, "widths": {"encoder.conv1": [65, 3]}}, "cannot have the widths"),
        ("cut", {"of": {"source": "cut"}, "widths": {"encoder.conv1": [8, 3]}}, "of must be the options of the whole"),
    ],
)
def test_names_and_options(source: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        build_segmentor(source, num_classes=3, **options)


def test_a_failed_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: Any, **kwargs: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("segmentation_models_pytorch.encoders.hf_hub_download", offline)
    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    for source, arch in (("smp", "Unet"), ("torchvision", "deeplabv3_mobilenetv2")):
        encoder = {"encoder_name": "mobilenet_v2"} if source == "smp" else {}
        with pytest.raises(InputError, match="no route to host.*internet.*encoder_checkpoint"):
            build_segmentor(source, num_classes=3, arch=arch, encoder_weights="imagenet", **encoder)


# ---- cost ----


def test_cost_by_hand(opaque: dict[str, Path]) -> None:
    # 3x3 convolution 3 -> 8 at 16x24, then 1x1 8 -> 5: multiply-accumulates times 2.
    flops = 2 * 16 * 24 * (3 * 8 * 9 + 8 * 5)
    segmentor = Segmentor(tiny(), num_classes=5).train()
    assert count_flops(segmentor, (32, 48)) == flops
    assert segmentor.training and next(segmentor.parameters()).device.type == "cpu"
    assert count_parameters(segmentor) == 3 * 8 * 9 + 8 + 2 * 8 + 8 * 5 + 5
    for source, kind in [("torchscript", "script"), ("torchscript", "frozen"), ("torch_export", "export")]:
        program = build_segmentor(source, num_classes=5, path=opaque[kind], trust=True, **PLAIN)
        assert count_flops(program, (32, 48)) == flops
