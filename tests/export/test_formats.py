"""Every export format, read by the program that it is for, against the segmentor."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from dfad_seg.common.errors import InputError
from dfad_seg.export import FORMATS, ExportOptions, OnnxNetwork, export, export_int8
from dfad_seg.segmentors import Segmentor, build_segmentor, exportable, load_segmentor, save_segmentor

CLASSES = ("sky", "road", "tree", "car", "pole")
PALETTE = tuple((10 * i, 20 * i, 30 * i) for i in range(5))


class Small(nn.Module):
    """A quarter of the resolution, and a stride of 4 that it insists on."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1))
        self.head = nn.Conv2d(32, 5, 1)

    def forward(self, x):
        x = self.down(x)
        pooled = x.mean((2, 3), keepdim=True).expand_as(x)
        return {"out": self.head(torch.cat([x, pooled], dim=1))}


@pytest.fixture(scope="module")
def small():
    """Of another convention than ours in everything: BGR, 0-255, stride 4, aligned corners."""
    torch.manual_seed(3)
    network = Small()
    for _ in range(3):
        network(100 * torch.rand(4, 3, 16, 16))
    return Segmentor(
        network.eval(),
        num_classes=5,
        mean=(100, 110, 120),
        std=(50, 60, 70),
        input_scale=255,
        channel_order="bgr",
        stride=4,
        align_corners=True,
        classes=CLASSES,
    ).eval()


def images(*shape, seed=1):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def assert_same(found, segmentor, batch):
    with torch.no_grad():
        torch.testing.assert_close(torch.as_tensor(found), segmentor(batch), rtol=1e-4, atol=1e-4)


SIZES = [(1, 3, 64, 64), (2, 3, 37, 50), (3, 3, 48, 33), (5, 3, 100, 40)]


def test_onnx_at_any_size_with_its_metadata(small, tmp_path):
    options = ExportOptions(size=(64, 64), palette=PALETTE, origin={"provenance_sha256": "ab"})
    written = export(small, tmp_path / "s.onnx", format="onnx", options=options)
    onnx.checker.check_model(str(written.path), full_check=True)
    session = onnxruntime.InferenceSession(str(written.path), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 3, "height", "width"]
    for shape in SIZES:
        assert_same(session.run(None, {"images": images(*shape).numpy()})[0], small, images(*shape))
    found = session.get_modelmeta().custom_metadata_map
    assert json.loads(found["classes"]) == list(CLASSES) and json.loads(found["palette"])[1] == [10, 20, 30]
    assert json.loads(found["preprocessing"]) == small.preprocessing()
    assert found["provenance_sha256"] == "ab" and len(found["state_sha256"]) == 64
    assert len(written.checks) == 3 and all(check.agreement > 0.999 for check in written.checks)
    assert "max difference" in written.report() and sorted(tmp_path.iterdir()) == [written.path]


def test_onnx_of_one_size_refuses_others(small, tmp_path):
    path = export(small, tmp_path / "s.onnx", options=ExportOptions(dynamic=False, size=(50, 64))).path
    network = OnnxNetwork(path)
    assert_same(network(images(1, 3, 50, 64)), small, images(1, 3, 50, 64))
    with pytest.raises(InputError, match=r"takes images of shape \(1, 3, 50, 64\)"):
        network(images(1, 3, 64, 64))


def test_torchscript(small, tmp_path):
    path = export(small, tmp_path / "s.torchscript", format="torchscript", options=ExportOptions(size=(64, 64))).path
    extra = {"segmentor.json": ""}
    loaded = torch.jit.load(str(path), _extra_files=extra)
    for shape in SIZES:
        assert_same(loaded(images(*shape)), small, images(*shape))
    assert json.loads(extra["segmentor.json"])["classes"] == list(CLASSES)


def test_torch_export(small, tmp_path):
    path = export(small, tmp_path / "s.pt2", format="torch-export", options=ExportOptions(size=(64, 64))).path
    loaded = torch.export.load(str(path)).module()
    for shape in SIZES:
        assert_same(loaded(images(*shape)), small, images(*shape))


@pytest.mark.parametrize("format", ["torchscript", "torch-export"])
def test_what_is_written_is_a_source_again(small, tmp_path, format):
    path = export(small, tmp_path / "again", format=format).path
    plain = {"mean": [0, 0, 0], "std": [1, 1, 1], "trust": True, "path": str(path)}
    again = build_segmentor(format.replace("-", "_"), num_classes=5, **plain)
    assert_same(again(images(2, 3, 37, 50)), small, images(2, 3, 37, 50))


@pytest.fixture(scope="module")
def deeplab(tmp_path_factory):
    """An smp network with TensorFlow's padding, which depends on the image's size."""
    torch.manual_seed(0)
    options = {"arch": "DeepLabV3Plus", "encoder_name": "timm-mobilenetv3_small_100", "decoder_channels": 16}
    path = tmp_path_factory.mktemp("deeplab") / "student.pt"
    save_segmentor(path, build_segmentor("smp", num_classes=5, **options), classes=CLASSES)
    return load_segmentor(path)


def test_smp_loads_its_folder(deeplab, tmp_path):
    import segmentation_models_pytorch as smp

    written = export(deeplab, tmp_path / "folder", format="smp")
    network = smp.from_pretrained(str(written.path)).eval()
    described = json.loads((written.path / "segmentor.json").read_text())
    mean, std = (torch.tensor(described["preprocessing"][key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    batch = images(2, 3, 64, 96)
    with torch.no_grad():
        assert_same(network((batch - mean) / std), deeplab, batch)
    assert json.loads((written.path / "config.json").read_text())["encoder_weights"] is None
    export(deeplab, tmp_path / "folder", format="smp")  # its own folder may be written again
    (tmp_path / "folder" / "mine.txt").write_text("x")
    with pytest.raises(InputError, match="it holds mine.txt"):
        export(deeplab, tmp_path / "folder", format="smp")


def test_safetensors_rebuild_the_network(deeplab, tmp_path):
    folder = export(deeplab, tmp_path / "folder", format="safetensors").path
    spec = json.loads((folder / "segmentor.json").read_text())["spec"]
    again = build_segmentor(**spec, checkpoint=str(folder / "model.safetensors")).eval()
    batch = images(1, 3, 40, 70)
    with torch.no_grad():
        assert torch.equal(again(batch), deeplab(batch))


def test_size_dependent_padding_becomes_constant_and_stays_exact(deeplab):
    module = exportable(deeplab, dynamic=True)
    for shape in [(1, 3, 64, 64), (2, 3, 37, 50), (1, 3, 100, 33)]:
        with torch.no_grad():
            torch.testing.assert_close(module(images(*shape)), deeplab(images(*shape)), rtol=0, atol=0)
    with pytest.raises(InputError, match="'same' padding"):
        from timm.layers import Conv2dSame

        exportable(Segmentor(Conv2dSame(3, 5, 3, stride=2), num_classes=5), dynamic=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "encoder"),
    [("DeepLabV3Plus", "timm-mobilenetv3_small_100"), ("Unet", "resnet18"), ("FPN", "timm-mobilenetv3_small_100")],
)
@pytest.mark.parametrize("format", ["onnx", "torch-export"])
def test_real_networks_at_any_size(arch, encoder, format, tmp_path):
    segmentor = build_segmentor("smp", num_classes=3, arch=arch, encoder_name=encoder).eval()
    written = export(segmentor, tmp_path / FORMATS[format].name, format=format)
    run = FORMATS[format].load(written.path)
    for shape in [(1, 3, 96, 96), (2, 3, 75, 130)]:
        assert_same(run(images(*shape)), segmentor, images(*shape))


def test_int8_is_smaller_and_close(small, tmp_path):
    batches = [images(4, 3, 40, 48, seed=seed) for seed in range(4)]
    fp32 = export(small, tmp_path / "s.onnx", options=ExportOptions(size=(64, 64), origin={"source_sha256": "cd"}))
    int8 = export_int8(fp32.path, tmp_path / "s_int8.onnx", batches, segmentor=small)
    model = onnx.load(str(int8.path))
    weights = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 4]
    assert len(weights) == 3 and all(node.op_type != "BatchNormalization" for node in model.graph.node)
    # One scale per output channel.
    sizes = {t.name: t.dims for t in model.graph.initializer}
    per_channel = [list(sizes[w.name.removesuffix("_quantized") + "_scale"]) for w in weights]
    assert sorted(per_channel) == sorted([w.dims[0]] for w in weights)
    properties = {pair.key: pair.value for pair in model.metadata_props}
    assert json.loads(properties["quantisation"])["calibration_images"] == 16 and properties["source_sha256"] == "cd"
    batch = images(2, 3, 50, 61, seed=9)
    with torch.no_grad():
        expected, found = small(batch), OnnxNetwork(int8.path)(batch)
    error = (found - expected).abs().mean() / expected.abs().mean()
    assert 0 < error < 0.05
    with pytest.raises(InputError, match="there are none"):
        export_int8(fp32.path, tmp_path / "none.onnx", [], segmentor=small)
    assert not (tmp_path / "none.onnx").exists()


def test_a_wrong_file_is_not_kept(small, tmp_path, monkeypatch):
    wrong = lambda self, batch: torch.zeros(len(batch), 5, *batch.shape[-2:])  # noqa: E731
    monkeypatch.setattr(OnnxNetwork, "forward", wrong)
    with pytest.raises(InputError, match="answers otherwise"):
        export(small, tmp_path / "s.onnx", options=ExportOptions(dynamic=False, size=(64, 64)))
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_says_why(small, tmp_path):
    with pytest.raises(InputError, match="Did you mean 'onnx'"):
        export(small, tmp_path / "x", format="onx")
    with pytest.raises(InputError, match="needs a network of segmentation_models_pytorch"):
        export(small, tmp_path / "x", format="smp")
    with pytest.raises(InputError, match="has no spec"):
        export(small, tmp_path / "x", format="safetensors")
    with pytest.raises(InputError, match="must be a Segmentor"):
        export(Small(), tmp_path / "x")
    with pytest.raises(InputError, match="8x64"):
        ExportOptions(size=(8, 64))
    script = export(small, tmp_path / "s.torchscript", format="torchscript").path
    opaque = build_segmentor("torchscript", num_classes=5, path=str(script), trust=True, mean=[0] * 3, std=[1] * 3)
    with pytest.raises(InputError, match="without the Python code"):
        export(opaque, tmp_path / "x.onnx")
    if importlib.util.find_spec("mmseg") is None:
        with pytest.raises(InputError, match="MMSegmentation, which is not installed"):
            export(small, tmp_path / "x", format="mmseg")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.torchscript"]


def test_the_segmentor_is_left_as_it_was(small, tmp_path):
    before = {key: value.clone() for key, value in small.network_state_dict().items()}
    small.train()
    export(small, tmp_path / "s.torchscript", format="torchscript")
    assert small.training and all(parameter.requires_grad for parameter in small.parameters())
    small.eval()
    assert all(np.array_equal(before[key], value) for key, value in small.network_state_dict().items())


def test_a_cut_network_goes_into_every_format_but_smps(tmp_path):
    from dfad_seg.segmentors import CutOptions, cut

    torch.manual_seed(0)
    teacher = build_segmentor("smp", num_classes=5, arch="Unet", encoder_name="resnet18").eval()
    options = CutOptions(macs=0.3, importance="magnitude", compensate=False)
    student = cut(teacher, options, (64, 64)).student
    shown = images(1, 3, 64, 96)
    for name in ("onnx", "torchscript", "torch-export"):
        written = export(student, tmp_path / FORMATS[name].name, format=name, options=ExportOptions(size=(64, 64)))
        assert (FORMATS[name].load(written.path)(shown) - student(shown)).abs().max() < 1e-3
    export_int8(tmp_path / "student.onnx", tmp_path / "int8.onnx", [images(4, 3, 64, 64)], segmentor=student)
    folder = export(student, tmp_path / "safetensors", format="safetensors").path
    spec = json.loads((folder / "segmentor.json").read_text())["spec"]
    rebuilt = build_segmentor(**spec, checkpoint=folder / "model.safetensors").eval()
    assert torch.equal(rebuilt(shown), student(shown))
    with pytest.raises(InputError, match="cannot hold a network that was cut"):
        export(student, tmp_path / "smp", format="smp")
