"""`dfad-seg inspect` on files of every origin."""

import pytest
import segmentation_models_pytorch as smp
import torch
import yaml
from shared import call_tool, scripted
from torch import nn
from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large, lraspp_mobilenet_v3_large

from dfad_seg import load_config
from dfad_seg.recipes.inspect import describe, starting_config
from dfad_seg.segmentors import Inspected, build_segmentor, inspect_file


def smp_file(path, arch="DeepLabV3Plus", encoder="resnet18", classes=11, **options):
    network = getattr(smp, arch)(encoder, encoder_weights=None, classes=classes, **options)
    torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}, "epoch": 3}, path)
    return path


@pytest.mark.parametrize(("arch", "encoder", "options"), [
    ("DeepLabV3", "resnet18", {}), ("DeepLabV3Plus", "tu-mobilenetv3_small_050", {"decoder_channels": 16}),
    ("UnetPlusPlus", "resnet18", {"decoder_channels": [32, 16, 16, 8, 8], "decoder_attention_type": "scse"}),
    ("Unet", "resnet18", {}), ("MAnet", "resnet18", {}), ("PSPNet", "resnet18", {"psp_out_channels": 64}),
    ("PAN", "resnet18", {}), ("UPerNet", "resnet18", {"decoder_channels": 64}), ("Segformer", "mit_b0", {}),
    ("FPN", "resnet18", {"decoder_merge_policy": "cat"}), ("DPT", "tu-vit_tiny_patch16_224", {}),
])  # fmt: skip
def test_smp_is_recognised(tmp_path, arch, encoder, options):
    found = inspect_file(smp_file(tmp_path / "t.pth", arch, encoder, classes=7, **options))
    assert found.exact and found.num_classes == 7
    assert found.options == {"arch": arch, "encoder_name": encoder, "checkpoint": str(tmp_path / "t.pth"), **options}
    network = getattr(smp, arch)(encoder, encoder_weights=None, classes=7, **options)
    assert found.parameters == sum(p.numel() for p in network.parameters())
    assert found.batch_norms == sum(isinstance(m, nn.BatchNorm2d) for m in network.modules())


def test_networks_that_the_file_cannot_tell_apart_are_all_named(tmp_path):
    """TensorFlow's BatchNorm and padding, and the output stride: other logits, the same names and shapes."""
    found = inspect_file(smp_file(tmp_path / "t.pth", "PAN", "tu-mobilenetv3_small_075", classes=3))
    assert found.exact and len(found.candidates) == 8
    assert {one["encoder_name"] for one in found.candidates} == {
        "tu-mobilenetv3_small_075", "tu-tf_mobilenetv3_small_075"
    }  # fmt: skip
    assert "one of 8 that fit" in describe("t.pth", found)


def test_grey_images_and_a_mask_and_what_smp_does_not_make(tmp_path):
    grey = smp.Unet("resnet18", encoder_weights=None, in_channels=1, classes=1)
    torch.save(grey.state_dict(), tmp_path / "grey.pth")
    found = inspect_file(tmp_path / "grey.pth")
    contract = {"in_channels": 1, "mean": [0.5], "std": [0.25], "output": "sigmoid"}
    assert found.exact and found.num_classes == 2 and contract.items() <= found.options.items()
    assert any("one channel" in hint for hint in found.hints) and any("std are a guess" in hint for hint in found.hints)
    torch.save({"encoder.x": torch.ones(2), "segmentation_head.w": torch.ones(1)}, tmp_path / "odd.pth")
    assert "no convolution in its head" in inspect_file(tmp_path / "odd.pth").kind


def test_other_origins(tmp_path):
    for build, more in ((lraspp_mobilenet_v3_large, {}), (deeplabv3_mobilenet_v3_large, {"aux_loss": True})):
        torch.save(build(weights=None, weights_backbone=None, num_classes=6, **more).state_dict(), tmp_path / "t")
        found = inspect_file(tmp_path / "t")
        assert found.exact and found.num_classes == 6
        assert found.options == {"arch": build.__name__, "checkpoint": str(tmp_path / "t")}

    torch.save({"model.segformer.x": torch.ones(1), "model.decode_head.y": torch.ones(1)}, tmp_path / "t")
    assert "folder of save_pretrained" in inspect_file(tmp_path / "t").kind

    state = {"backbone.conv1.weight": torch.rand(4, 3, 3, 3), "decode_head.conv_seg.weight": torch.rand(3, 4, 1, 1)}
    torch.save({"state_dict": state, "meta": {"dataset_meta": {"classes": ("a", "b", "c")}}}, tmp_path / "mm.pth")
    found = inspect_file(tmp_path / "mm.pth")
    assert found.source is None and found.classes == ("a", "b", "c") and found.num_classes == 3

    torch.save({"conv1.weight": torch.rand(4, 3, 3, 3), "fc.weight": torch.rand(9, 4)}, tmp_path / "encoder.pth")
    assert "encoder_checkpoint" in inspect_file(tmp_path / "encoder.pth").hints[0]


def mine():
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 1, 1))


def test_ones_own_code_is_asked_what_it_answers(tmp_path):
    torch.save({"state_dict": {f"model.{k}": v for k, v in mine().state_dict().items()}}, tmp_path / "t.pth")
    found = inspect_file(tmp_path / "t.pth")
    assert found.source == "factory" and "--factory" in found.hints[0] and not found.exact
    found = inspect_file(tmp_path / "t.pth", factory=f"{__name__}:mine")
    assert found.exact and found.num_classes == 2 and found.options["output"] == "sigmoid" and found.batch_norms == 1
    text = starting_config(found, build_segmentor("factory", num_classes=2, **found.options))
    assert yaml.safe_load(text)["student"]["source"] == "cut" and "logit_adjustment: 0.0" in text and "&" not in text
    assert "no save_pretrained" in starting_config(Inspected("a folder", "transformers", {"pretrained": "x"}, 3))


def test_programs_are_loaded_only_if_trusted(tmp_path, monkeypatch):
    scripted(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Softmax(1)), tmp_path / "t.pt")
    with monkeypatch.context() as patch:
        patch.setattr(torch.jit, "load", None)
        found = inspect_file(tmp_path / "t.pt")
    assert found.source == "torchscript" and found.num_classes is None and not found.exact
    found = inspect_file(tmp_path / "t.pt", trust=True)
    assert found.num_classes == 4 and found.batch_norms == 1 and any("probabilities" in hint for hint in found.hints)


def test_a_teacher_that_cannot_be_cut_gets_another_student(tmp_path, capsys):
    scripted(nn.Sequential(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1)), tmp_path / "t.pt")
    assert call_tool("inspect", tmp_path / "t.pt", "--trust", "--out", tmp_path / "mine.yaml") == 0
    text = (tmp_path / "mine.yaml").read_text()
    assert "# This teacher cannot be cut" in text and "&" not in text
    student = load_config(tmp_path / "mine.yaml").student
    assert student.name == "smp" and student.options.in_channels == 1


def test_the_tool_on_a_file_of_a_run(world, tmp_path, capsys):
    assert call_tool("inspect", world.teacher) == 0
    printed = capsys.readouterr().out
    assert "a file of this program: smp DeepLabV3Plus tu-test_resnet" in printed and "bicyclist" in printed
    assert "source: saved" in printed
    values = yaml.safe_load(printed.partition("a config to start from:\n")[2])
    assert values["teacher"] == {"source": "saved", "checkpoint": str(world.teacher)}
    assert values["student"]["source"] == "cut" and "# The teacher with half" in printed
    assert call_tool("inspect", world.teacher, "--student", "other") == 0
    assert yaml.safe_load(capsys.readouterr().out.partition("start from:\n")[2])["student"]["source"] == "smp"
    (tmp_path / "mine.yaml").write_text("x")
    assert call_tool("inspect", world.teacher, "--out", tmp_path / "mine.yaml") == 2
