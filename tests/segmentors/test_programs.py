"""Networks that come as a program: tried when they are opened, and never what they only seem to be."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from shared import exported, tiny, trained_tiny
from torch import Tensor, nn

from dfad_seg.common.errors import InputError
from dfad_seg.segmentors import Segmentor, build_segmentor, freeze

PLAIN = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
PROGRAMS = [("torchscript", "script"), ("torchscript", "frozen"), ("torch_export", "export")]


class Call(nn.Module):
    """A network of one convolution and a function after it."""

    def __init__(self, then: Any = lambda y, x: y, *, stride: int = 1, train: bool = False, parts: Any = ()) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 5, 3, stride=stride, padding=1)
        self.parts = nn.Sequential(*parts)
        self.then = then
        self.train(train)

    def forward(self, x: Tensor) -> Any:
        return self.then(self.parts(self.convolution(x)), x)


def resized(y: Tensor, x: Tensor) -> Tensor:
    return F.interpolate(y, size=(int(x.shape[2]), int(x.shape[3])), mode="bilinear")  # the traced numbers are burnt in


def flattened(y: Tensor, x: Tensor) -> Tensor:
    height, width = int(x.shape[2]), int(x.shape[3])
    return y.reshape(-1, 5, height * width).softmax(1).reshape(-1, 5, height, width)


def doubled(y: Tensor, x: Tensor) -> Tensor:
    return y + F.interpolate(F.max_pool2d(y, 4), scale_factor=4.0)


def one_image(y: Tensor, x: Tensor) -> Tensor:
    return y.reshape(5, -1).reshape(1, 5, *y.shape[2:])


def traced(network: nn.Module, path: Path, size: tuple[int, int] = (40, 56), **options: Any) -> Path:
    kind = torch.float16 if options.get("half") else torch.float32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trace = torch.jit.trace(network.to(kind), torch.rand(1, 3, *size).to(kind), check_trace=False)
        torch.jit.save(torch.jit.freeze(trace.eval()) if options.get("frozen") else trace, str(path))
    return path


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "dropout": (lambda: Call(parts=[nn.Dropout(0.5)], train=True), {}, "training mode.*dropout is live.*model.eval"),
    "statistics": (lambda: Call(parts=[nn.BatchNorm2d(5)], train=True), {}, "training mode.*running statistics"),
    "batch": (lambda: Call(parts=[nn.BatchNorm2d(5, track_running_stats=False)]), {}, "others of its batch"),
    "pooled": (lambda: Call(parts=[nn.AdaptiveAvgPool2d(1)]), {}, "whatever the image"),
    "half, frozen": (Call, {"half": True, "frozen": True}, "half precision.*model.float"),
    "resized": (lambda: Call(resized, stride=4), {}, "burnt in, make it anew"),
    "flattened": (lambda: Call(flattened), {"size": (72, 48)}, "burnt in, make it anew"),
    "no map": (lambda: Call(lambda y, x: y.mean((2, 3))), {}, r"logits of shape \(1, 5\)"),
    "a pair": (lambda: Call(lambda y, x: (y, y)), {}, "a tuple of 2"),
    "classes": (lambda: Call(lambda y, x: y[:, :4]), {}, "num_classes"),
    "an error": (lambda: Call(lambda y, x: y @ torch.ones(7, 7)), {"size": (9, 7)}, "the network failed on an input"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_serve_is_refused_when_it_is_opened(tmp_path: Path, name: str) -> None:
    make, options, says = REFUSED[name]
    path = traced(make(), tmp_path / "t.pt", **options)
    with pytest.raises(InputError, match=says) as refused:
        build_segmentor("torchscript", num_classes=5, path=path, trust=True, **PLAIN)(torch.rand(1, 3, 64, 64))
    assert str(path) in str(refused.value) or "network" in str(refused.value)


@pytest.mark.parametrize(
    ("network", "options", "stride"),
    [(Call(), {}, 1), (Call(), {"half": True}, 1), (Call(doubled), {}, 4), (Call(one_image), {}, 1)],
    ids=["any size", "half", "stride", "single images"],
)
def test_the_sizes_that_a_trace_takes_are_found_out(
    tmp_path: Path, network: nn.Module, options: dict[str, Any], stride: int
) -> None:
    path = traced(network, tmp_path / "t.pt", **options)
    segmentor = build_segmentor("torchscript", num_classes=5, path=path, trust=True, **PLAIN)
    assert (segmentor.stride, segmentor.fixed_size) == (stride, None)
    images = torch.rand(2, 3, 45, 61)
    expected = Segmentor(network.float(), num_classes=5, stride=stride, **PLAIN)
    with torch.no_grad():
        each = torch.cat([expected(image[None]) for image in images])
        torch.testing.assert_close(segmentor(images), each, rtol=1e-2 if options.get("half") else 1e-4, atol=1e-4)


@pytest.mark.parametrize(("source", "kind"), [*PROGRAMS, ("torch_export", "fixed")])
def test_programs_answer_as_the_original(opaque: dict[str, Path], source: str, kind: str) -> None:
    images = torch.rand(2, 3, 32, 48)
    options = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "path": opaque[kind], "trust": True}
    segmentor = freeze(build_segmentor(source, num_classes=5, **options))
    expected = Segmentor(trained_tiny(), num_classes=5, mean=options["mean"], std=options["std"]).eval()
    with torch.no_grad():
        torch.testing.assert_close(segmentor(images), expected(images))
        torch.testing.assert_close(segmentor.to("cpu")(images), expected(images))


@pytest.mark.parametrize("source", ["torchscript", "torch_export"])
def test_programs_need_trust_and_a_normalisation(
    opaque: dict[str, Path], source: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = opaque["script" if source == "torchscript" else "export"]
    (tmp_path / "wrong").write_bytes(b"no program")
    for options, says in (
        ({"path": path, **PLAIN}, "trust: true"),
        ({"path": tmp_path / "none", "trust": True, **PLAIN}, "none is no file"),
        ({"path": tmp_path / "wrong", "trust": True, **PLAIN}, "cannot be loaded"),
        ({"path": path, "trust": True}, "mean and std"),
    ):
        with pytest.raises(InputError, match=says):
            build_segmentor(source, num_classes=5, **options)
    assert "Traceback" not in capfd.readouterr().err


class PinsItsDevice(nn.Module):
    """Makes tensors of its own, converts types, and holds a constant: what ties an export to one device."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        ramp = torch.arange(x.shape[-1], device=x.device, dtype=torch.float32)
        return (x * self.scale).to(torch.float32) + ramp + torch.zeros(3, 1, 1, device="cpu").to(x.device)


def test_export_moves_as_a_whole(tmp_path: Path) -> None:
    network = PinsItsDevice().eval()
    path = exported(network, tmp_path / "pins.pt2")
    segmentor = build_segmentor("torch_export", num_classes=3, path=path, trust=True, **PLAIN)
    images = torch.rand(2, 3, 32, 48)
    torch.testing.assert_close(segmentor(images), network(images))
    with torch.autocast("cpu", torch.bfloat16):
        assert segmentor(images).shape == images.shape
    # The meta device stands for a GPU: an operation that mixes devices fails there as well.
    moved = segmentor.to("meta")(images.to("meta"))
    assert moved.device.type == "meta" and moved.shape == images.shape


def test_exports_of_some_sizes_and_of_training_mode(tmp_path: Path, opaque: dict[str, Path]) -> None:
    sizes = {2: 8 * torch.export.Dim("h", min=2, max=8), 3: 8 * torch.export.Dim("w", min=2, max=8)}
    network = nn.Conv2d(3, 5, 8, stride=8).eval()
    program = torch.export.export(network, (torch.rand(2, 3, 32, 48),), dynamic_shapes=(sizes,))
    torch.export.save(program, tmp_path / "conv.pt2")
    options: dict[str, Any] = {"path": tmp_path / "conv.pt2", "trust": True, "stride": 8, **PLAIN}
    segmentor = build_segmentor("torch_export", num_classes=5, **options)
    assert segmentor(torch.rand(2, 3, 33, 48)).shape == (2, 5, 33, 48)
    with pytest.raises(InputError, match=r"failed on an input of shape \(2, 3, 72, 48\)"):
        segmentor(torch.rand(2, 3, 65, 48))

    fixed = build_segmentor("torch_export", num_classes=5, path=opaque["fixed"], trust=True, **PLAIN)
    with pytest.raises(InputError, match="takes images of 32x48 only, and got 32x40. Take images of that size"):
        fixed(torch.rand(2, 3, 32, 40))
    images = torch.rand(5, 3, 32, 48)  # exported for two images
    torch.testing.assert_close(fixed(images)[3:5], fixed(images[3:]))

    exported(tiny().train(), tmp_path / "train.pt2")
    with pytest.raises(InputError, match="model.eval"):
        build_segmentor("torch_export", num_classes=5, path=tmp_path / "train.pt2", trust=True, **PLAIN)
