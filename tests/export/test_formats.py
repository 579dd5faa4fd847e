"""Every export format, read by the program that it is for, against the segmentor."""

import copy
import errno
import json
import os
import zipfile
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import dfad_seg
from dfad_seg.common.errors import InputError
from dfad_seg.exporting import FORMATS, OnnxNetwork, export, export_int8
from dfad_seg.exporting.base import PoolByProducts, _pool_by_products
from dfad_seg.segmentors import CutOptions, Segmentor, build_segmentor, cut, exportable, load_segmentor, save_segmentor

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
    normalisation = {"mean": (100, 110, 120), "std": (50, 60, 70), "input_scale": 255, "channel_order": "bgr"}
    options = {"num_classes": 5, "stride": 4, "align_corners": True, "classes": CLASSES}
    segmentor = Segmentor(network.eval(), **options, **normalisation).eval()
    segmentor.palette = PALETTE
    return segmentor


def images(*shape, seed=1):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def assert_same(found, segmentor, batch):
    with torch.no_grad():
        logits = segmentor(batch)
    # Rounding grows with the logits.
    bound = 1e-4 * max(1.0, float(logits.abs().max()))
    torch.testing.assert_close(torch.as_tensor(found), logits, rtol=1e-4, atol=bound)


SIZES = [(1, 3, 64, 64), (2, 3, 37, 50), (3, 3, 48, 33), (5, 3, 100, 40)]


def test_onnx_at_any_size_with_its_metadata(small, tmp_path):
    written = export(small, tmp_path / "s.onnx", size=(64, 64), origin={"provenance_sha256": "ab"})
    onnx.checker.check_model(str(written.path), full_check=True)
    session = onnxruntime.InferenceSession(str(written.path), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 3, "height", "width"]
    for shape in SIZES:
        assert_same(session.run(None, {"images": images(*shape).numpy()})[0], small, images(*shape))
    found = session.get_modelmeta().custom_metadata_map
    assert json.loads(found["classes"]) == list(CLASSES) and json.loads(found["palette"])[1] == [10, 20, 30]
    assert json.loads(found["preprocessing"]) == small.preprocessing() and "inside the file" in found["normalisation"]
    assert found["provenance_sha256"] == "ab" and len(found["state_sha256"]) == 64
    assert len(written.checks) == 3 and all(check.agreement > 0.999 for check in written.checks)
    assert "max difference" in written.report() and sorted(tmp_path.iterdir()) == [written.path]


def test_onnx_of_one_size_refuses_others(small, tmp_path):
    path = export(small, tmp_path / "s.onnx", dynamic=False, size=(50, 64)).path
    network = OnnxNetwork(path)
    assert_same(network(images(1, 3, 50, 64)), small, images(1, 3, 50, 64))
    with pytest.raises(InputError, match=r"takes images of shape \(1, 3, 50, 64\)"):
        network(images(1, 3, 64, 64))


@pytest.mark.parametrize("format", ["torchscript", "torch-export"])
def test_torchs_own_programs(small, tmp_path, format):
    path = export(small, tmp_path / FORMATS[format].name, format=format, size=(64, 64)).path
    extra = {"segmentor.json": ""}
    if format == "torchscript":
        loaded = torch.jit.load(str(path), _extra_files=extra)
    else:
        loaded = torch.export.load(str(path), extra_files=extra).module()
    for shape in SIZES:
        assert_same(loaded(images(*shape)), small, images(*shape))
    assert json.loads(extra["segmentor.json"])["classes"] == list(CLASSES)
    # And it is a source again.
    plain = {"mean": [0, 0, 0], "std": [1, 1, 1], "trust": True, "path": str(path)}
    again = build_segmentor(format.replace("-", "_"), num_classes=5, **plain)
    assert_same(again(images(2, 3, 37, 50)), small, images(2, 3, 37, 50))


@pytest.mark.parametrize("format", ["onnx", "torchscript", "torch-export", "safetensors", "smp"])
def test_nothing_of_its_makers_machine_is_inside(small, deeplab, tmp_path, format):
    path = export(deeplab if FORMATS[format].is_folder else small, tmp_path / "s.x", format=format).path
    files = [path] if path.is_file() else list(path.iterdir())
    content = b""
    for file in files:
        content += file.read_bytes()
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                content += b"".join(archive.read(name) for name in archive.namelist())
    for trace in (Path(dfad_seg.__file__).parents[1], Path(torch.__file__).parents[1], tmp_path, Path.home()):
        assert len(trace.parts) < 3 or str(trace).encode() not in content, trace
    assert b'.py"' not in content and b"site-packages" not in content


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


def test_size_dependent_padding_becomes_constant_and_stays_exact(deeplab):
    module = exportable(deeplab, dynamic=True)
    for shape in [(1, 3, 64, 64), (2, 3, 37, 50), (1, 3, 100, 33)]:
        with torch.no_grad():
            torch.testing.assert_close(module(images(*shape)), deeplab(images(*shape)), rtol=0, atol=0)


ARCHITECTURES = {
    "Unet": "resnet18", "UnetPlusPlus": "resnet18", "MAnet": "resnet18", "Linknet": "resnet18", "FPN": "resnet18",
    "PSPNet": "resnet18", "DeepLabV3": "resnet18", "DeepLabV3Plus": "timm-mobilenetv3_small_100", "PAN": "resnet18",
    "UPerNet": "resnet18", "Segformer": "resnet18", "DPT": "tu-vit_tiny_patch16_224.augreg_in21k",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("arch", [*ARCHITECTURES])
def test_every_architecture_is_exported_for_any_size_or_says_why_not(arch, tmp_path):
    segmentor = build_segmentor("smp", num_classes=3, arch=arch, encoder_name=ARCHITECTURES[arch]).eval()
    try:
        written = export(segmentor, tmp_path / "s.onnx", size=(96, 96))
    except InputError as refused:
        assert arch in NEED_ONE_SIZE and "Export one size (--no-dynamic --size H W)" in str(refused), refused
        written = export(segmentor, tmp_path / "s.onnx", dynamic=False, size=(224, 224))  # the advice works
        shapes = [(1, 3, 224, 224)]
    else:
        assert arch not in NEED_ONE_SIZE
        shapes = [(1, 3, 96, 96), (2, 3, 75, 130)]
    for shape in shapes:
        assert_same(OnnxNetwork(written.path)(images(*shape)), segmentor, images(*shape))


NEED_ONE_SIZE = {"PAN", "DPT"}


@pytest.mark.parametrize("cells", [2, (3, 5), (None, 4), 6])
@pytest.mark.parametrize("shape", [(2, 4, 7, 9), (1, 3, 6, 6), (1, 1, 2, 13)])
def test_pooling_by_products_is_adaptive_pooling(cells, shape):
    layer = nn.AdaptiveAvgPool2d(cells)
    _pool_by_products(nn.Sequential(layer))
    found = layer(images(*shape))  # the very layer, which a network may keep in several places
    assert isinstance(layer, PoolByProducts)
    torch.testing.assert_close(found, nn.functional.adaptive_avg_pool2d(images(*shape), cells))


def test_a_full_disk_leaves_nothing(small, deeplab, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    for format in ("onnx", "torchscript", "torch-export", "safetensors", "smp"):
        with pytest.raises(OSError, match="No space left"):
            export(deeplab if FORMATS[format].is_folder else small, tmp_path / "new" / "s", format=format)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", FORMATS)
def test_where_it_cannot_be_written_is_known_before_the_work(small, tmp_path, format, monkeypatch):
    monkeypatch.setattr("dfad_seg.exporting.description", lambda *a: pytest.fail("it has begun"))
    (tmp_path / "file").write_text("")
    for path in ("/dev/null", tmp_path / "file" / "s", tmp_path / ("x" * 300)):
        with pytest.raises(InputError, match="cannot be written|no regular file"):
            export(small, path, format=format)


def test_int8_is_smaller_and_close(small, tmp_path):
    batches = [images(4, 3, 40, 48, seed=seed) for seed in range(4)]
    fp32 = export(small, tmp_path / "s.onnx", size=(64, 64), origin={"source_sha256": "cd"})
    int8 = export_int8(fp32.path, tmp_path / "s_int8.onnx", batches, segmentor=small)
    model = onnx.load(str(int8.path))
    weights = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 4]
    assert len(weights) == 3 and all(node.op_type != "BatchNormalization" for node in model.graph.node)
    properties = {pair.key: pair.value for pair in model.metadata_props}
    assert json.loads(properties["quantisation"])["calibration_images"] == 16 and properties["source_sha256"] == "cd"
    batch = images(2, 3, 50, 61, seed=9)
    with torch.no_grad():
        expected, found = small(batch), OnnxNetwork(int8.path)(batch)
    error = (found - expected).abs().mean() / expected.abs().mean()
    assert 0 < error < 0.05
    with pytest.raises(InputError, match="there are none"):
        export_int8(fp32.path, tmp_path / "none.onnx", [], segmentor=small)


def test_layers_that_8_bits_would_ruin_stay_float32(small, tmp_path):
    uneven = copy.deepcopy(small)
    with torch.no_grad():  # the same answers, but one channel's range leaves the others a single step of 255
        uneven.network.down[1].weight[0] *= 1e4
        uneven.network.down[1].bias[0] *= 1e4
        uneven.network.down[3].weight[:, 0] /= 1e4
    fp32 = export(uneven, tmp_path / "s.onnx", size=(64, 64))
    int8 = export_int8(fp32.path, tmp_path / "s_int8.onnx", [images(4, 3, 40, 48)], segmentor=uneven)
    quantisation = json.loads(OnnxNetwork(int8.path).session.get_modelmeta().custom_metadata_map["quantisation"])
    assert 1 <= quantisation["float32_layers"] < quantisation["layers"] == 3
    assert int8.checks[0].agreement > 0.97


def test_a_wrong_file_is_not_kept(small, tmp_path, monkeypatch):
    wrong = lambda self, batch: torch.zeros(len(batch), 5, *batch.shape[-2:])  # noqa: E731
    monkeypatch.setattr(OnnxNetwork, "forward", wrong)
    with pytest.raises(InputError, match="answers otherwise"):
        export(small, tmp_path / "s.onnx", dynamic=False, size=(64, 64))
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_says_why(small, tmp_path):
    script = export(small, tmp_path / "s.torchscript", format="torchscript").path
    opaque = build_segmentor("torchscript", num_classes=5, path=str(script), trust=True, mean=[0] * 3, std=[1] * 3)
    for segmentor, options, message in (
        (small, {"format": "onx"}, "Did you mean 'onnx'"),
        (small, {"format": "smp"}, "needs a network of segmentation_models_pytorch"),
        (small, {"format": "safetensors"}, "has no spec"),
        (small, {"size": (8, 64)}, "size is 8x64; both sides"),
        (small, {"sise": (64, 64)}, "sise: unknown key. Did you mean 'size'"),
        (small, {"format": "safetensors", "size": (64, 64)}, "size: unknown key"),
        (Small(), {}, "must be a Segmentor"),
        (opaque, {}, "without the Python code"),
    ):
        with pytest.raises(InputError, match=message):
            export(segmentor, tmp_path / "x", **options)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.torchscript"]


def test_a_cut_network_goes_into_every_format_but_smps(tmp_path):
    torch.manual_seed(0)
    options = {"arch": "Unet", "encoder_name": "resnet18", "encoder_depth": 3, "decoder_channels": [16, 8, 8]}
    teacher = build_segmentor("smp", num_classes=5, **options).eval()
    student = cut(teacher, CutOptions(macs=0.3, importance="magnitude", compensate=False), (64, 64)).student
    shown = images(1, 3, 64, 96)
    written = export(student, tmp_path / "student.onnx", size=(64, 64))
    assert (OnnxNetwork(written.path)(shown) - student(shown)).abs().max() < 1e-3
    folder = export(student, tmp_path / "safetensors", format="safetensors").path
    spec = json.loads((folder / "segmentor.json").read_text())["spec"]
    rebuilt = build_segmentor(**spec, checkpoint=folder / "model.safetensors").eval()
    assert torch.equal(rebuilt(shown), student(shown))
    with pytest.raises(InputError, match="cannot hold a network that was cut"):
        export(student, tmp_path / "smp", format="smp")
