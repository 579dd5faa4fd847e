"""Students cut out of their teachers: widths, budgets, compensation, files."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dfad_seg.common.errors import InputError
from dfad_seg.segmentors import (
    Cut,
    CutOptions,
    Segmentor,
    build_segmentor,
    count_flops,
    count_parameters,
    cut,
    freeze,
    load_segmentor,
    save_segmentor,
    state_hash,
)
from dfad_seg.segmentors.cut import compensate
from dfad_seg.segmentors.cut_importance import by_agreement, by_magnitude
from dfad_seg.segmentors.cut_narrow import dropped_rows, narrow
from dfad_seg.segmentors.cut_widths import find_widths

SIZE = (64, 64)
PLAIN: dict[str, Any] = {"importance": "magnitude", "compensate": False}


class Blocks(nn.Module):
    """An encoder with a sum and a depthwise convolution, a decoder with a concatenation."""

    def __init__(self, groups: int = 1, shared: bool = False, auxiliary: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU())
        self.block = nn.Sequential(
            nn.Conv2d(32, 64, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
            nn.Conv2d(64, 64, 3, 1, 1, groups=64, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
            nn.Conv2d(64, 32, 1, bias=False), nn.BatchNorm2d(32),
        )  # fmt: skip
        self.left = nn.Conv2d(32, 16, 3, padding=1, groups=groups)
        self.right = self.left if shared else nn.Conv2d(32, 20, 1, groups=min(groups, 4))
        self.head = nn.Conv2d(32 if shared else 36, 5, 1)
        self.auxiliary = nn.Conv2d(32, 5, 1) if auxiliary else nn.Identity()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.stem(x)
        x = torch.relu(x + self.block(x))
        return {"out": self.head(torch.cat([self.left(x), self.right(x)], 1)), "auxiliary": self.auxiliary(x)}


def used(segmentor: Segmentor) -> Segmentor:
    """With BatchNorm statistics and scales that are not the initial ones, frozen."""
    rng = torch.Generator().manual_seed(1)
    for module in segmentor.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=rng) * 0.1)
            module.running_var.copy_(torch.rand(module.num_features, generator=rng) + 0.5)
            module.weight.data.copy_(torch.rand(module.num_features, generator=rng) + 0.5)
    return freeze(segmentor)


def blocks(**options: Any) -> Segmentor:
    torch.manual_seed(0)
    segmentor = Segmentor(Blocks(**options), num_classes=5, stride=2)
    segmentor.spec = {"source": "factory", "num_classes": 5, "factory": "networks:Blocks", "mean": [0.5] * 3}
    return used(segmentor)


def images(count: int = 2, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(2))


def muted(teacher: Segmentor, made: Cut) -> Segmentor:
    """The whole teacher in which nothing reads the channels that the cut dropped: an independent reference."""
    copied = copy.deepcopy(teacher)
    for key, stays in made.rows.items():
        name, side = key.rsplit(":", 1)
        if side == "in":
            layer = copied.network.get_submodule(name)
            gone = torch.ones(layer.weight.shape[1], dtype=torch.bool)
            gone[stays] = False
            layer.weight.data[:, gone] = 0
    return copied


NETWORKS = {
    "blocks": None,
    "unet": {"source": "smp", "arch": "Unet", "encoder_name": "resnet18", "decoder_channels": [32, 32, 16, 16, 8]},
    "convnext": {"source": "smp", "arch": "Unet", "encoder_name": "tu-convnext_atto"},
    "auxiliary": None,
    "larger than SIZE": {"source": "smp", "arch": "PAN", "encoder_name": "tu-test_resnet"},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_cut_computes_what_the_teacher_without_those_channels_does_and_meets_its_budget(name: str) -> None:
    options, auxiliary = NETWORKS[name], name == "auxiliary"
    torch.manual_seed(0)
    teacher = used(build_segmentor(num_classes=5, **options)) if options else blocks(auxiliary=auxiliary)
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    made = cut(teacher, CutOptions(macs=0.7, **PLAIN), SIZE)
    shown = images(size=(50, 70))
    with torch.no_grad():
        expected, found = muted(teacher, made)(shown), made.student(shown)
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
    share = count_flops(made.student, SIZE) / count_flops(teacher, SIZE)
    assert 0.7 * 0.97 <= share <= 0.7 * 1.001 and made.macs_share == pytest.approx(share, abs=1e-3)
    assert made.parameters_share == pytest.approx(count_parameters(made.student) / count_parameters(teacher), abs=1e-3)
    assert all(p.requires_grad for p in made.student.parameters())
    assert all(torch.equal(before[key], value) for key, value in teacher.state_dict().items())


def test_both_ends_of_a_budget() -> None:
    teacher = blocks()
    made = cut(teacher, CutOptions(macs=1.0), SIZE)  # nothing to cut: the teacher, to the last bit
    assert torch.equal(made.student(images()), teacher(images())) and not made.rows
    widths, costs = find_widths(teacher, SIZE)
    least = costs.total({name: price.counts[-1] for name, price in by_magnitude(teacher, widths).items()})
    share = least[0] / costs.total({})[0]
    assert cut(teacher, CutOptions(macs=0.98 * share, **PLAIN), SIZE).macs_share == pytest.approx(share)


@pytest.mark.parametrize(("importance", "share"), [("agreement", 0.6), ("magnitude", 0.55)])
def test_parameters_are_a_budget_too_and_every_importance_meets_it(importance: str, share: float) -> None:
    teacher = blocks()
    made = cut(teacher, CutOptions(parameters=share, importance=importance), SIZE, images(4))
    assert 0.97 * share <= count_parameters(made.student) / count_parameters(teacher) <= share


def test_channels_that_others_can_stand_in_for_go_first_and_nothing_is_lost() -> None:
    # Half of the block's hidden channels are twins of the other half, so least squares loses nothing.
    teacher = blocks()
    block = teacher.network.block
    for layer in (block[0], block[1], block[3], block[4]):
        for value in (layer.weight, layer.bias, *(getattr(layer, n, None) for n in ("running_mean", "running_var"))):
            if value is not None:
                value.data[32:] = value.data[:32]
    shown = images(8)
    widths, _ = find_widths(teacher, SIZE)
    price = by_agreement(teacher, widths, shown, ridge=1e-9)["block.0"]
    half = price.counts.index(32)
    assert price.costs[half] < 1e-6 * price.costs[-1]
    plain = (cut(teacher, CutOptions(macs=0.75, **PLAIN), SIZE).student(shown) - teacher(shown)).abs().mean()
    copied = copy.deepcopy(teacher)
    copied.is_frozen = False
    rows = narrow(copied.network, dropped_rows(widths, {"block.0": price.order[32:].sort().values}))
    compensate(copied.network, teacher.network, rows, teacher.normalise(shown), ridge=1e-9)
    assert (copied(shown) - teacher(shown)).abs().max() < 1e-3
    assert plain > 1e-2


def test_pooled_inputs_that_hardly_vary_cost_no_more_than_they_vary() -> None:
    network = nn.Sequential(nn.Conv2d(3, 64, 1), nn.AdaptiveAvgPool2d(1), nn.Conv2d(64, 5, 1), nn.Upsample(SIZE))
    network[0].weight.data *= 1e-4
    network[0].bias.data.fill_(1.0)
    teacher = freeze(Segmentor(network, num_classes=5, stride=1))
    assert by_agreement(teacher, find_widths(teacher, SIZE)[0], images(8))["0"].costs[-1] < 1e-16


def test_compensation_brings_the_predictions_nearer() -> None:
    teacher, found = blocks(), []
    for compensated in (False, True):
        made = cut(teacher, CutOptions(macs=0.5, importance="magnitude", compensate=compensated), SIZE, images(16))
        found.append(float((made.student(images(4)) - teacher(images(4))).detach().square().mean()))
    assert found[1] < 0.5 * found[0]


def test_a_cut_student_is_rebuilt_from_its_file(tmp_path: Any) -> None:
    torch.manual_seed(0)
    teacher = used(build_segmentor("smp", num_classes=5, arch="Unet", encoder_name="resnet18", mean=[0.1, 0.2, 0.3]))
    student = cut(teacher, CutOptions(macs=0.5, **PLAIN), SIZE).student.eval()
    again = cut(freeze(student), CutOptions(macs=0.5, **PLAIN), SIZE).student.eval()  # what is cut can be cut again
    for number, network in enumerate((student, again)):
        save_segmentor(tmp_path / f"{number}.pt", network, classes=list("abcde"))
        loaded = load_segmentor(tmp_path / f"{number}.pt")
        assert torch.equal(loaded(images()), network(images())) and loaded.classes == tuple("abcde")
    assert count_flops(again, SIZE) == pytest.approx(0.25 * count_flops(teacher, SIZE), rel=0.06)


@pytest.mark.parametrize(("encoder", "arch"), [("mobilenet_v2", "Unet"), ("tu-test_resnet", "FPN")])
def test_a_student_of_another_architecture_takes_the_teachers_encoder(encoder: str, arch: str, tmp_path: Any) -> None:
    whole = {"num_classes": 3, "arch": "DeepLabV3Plus", "encoder_name": encoder, "mean": [0.1, 0.2, 0.3]}
    teacher = freeze(build_segmentor("smp", **whole, channel_order="bgr"))
    for name, network in {"teacher": teacher, "cut": cut(teacher, CutOptions(macs=0.5, **PLAIN), SIZE).student}.items():
        save_segmentor(tmp_path / name, network)
    options = {"num_classes": 3, "arch": arch, "encoder_name": encoder, "encoder_checkpoint": tmp_path / "teacher"}
    student = build_segmentor("smp", **options)
    assert state_hash(student.network.encoder) == state_hash(teacher.network.encoder)
    assert torch.equal(student.normalise(images()), teacher.normalise(images()))
    for change, says in (
        ({"encoder_name": "resnet18"}, f"of a network smp DeepLabV3Plus {encoder}, does not fit .*missing"),
        ({"encoder_checkpoint": tmp_path / "cut"}, "with fewer channels, does not fit .* of another shape"),
    ):
        with pytest.raises(InputError, match=says):
            build_segmentor("smp", **options | change)


def opaque() -> Segmentor:
    segmentor = Segmentor(torch.jit.trace(nn.Conv2d(3, 5, 1), images()), num_classes=5)  # type: ignore
    segmentor.spec = {"source": "torchscript", "num_classes": 5}
    return segmentor


@pytest.mark.parametrize(
    ("teacher", "options", "message"),
    [
        (opaque, {"macs": 0.5}, "no Python layers"),
        (blocks, {"macs": 0.01}, "cannot be reached.*at least"),
        (lambda: Segmentor(Blocks(), num_classes=5), {"macs": 0.5}, "built by hand"),
        (blocks, {"macs": 0.5, "compensate": True}, "needs generated images"),
    ],
)
def test_what_cannot_be_cut_says_why(teacher: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        cut(teacher(), CutOptions(**(PLAIN | options)), SIZE)


def test_group_convolutions_and_shared_layers_keep_their_width() -> None:
    for options in ({"groups": 4}, {"shared": True}):
        assert {width.name for width in find_widths(blocks(**options), SIZE)[0]} == {"block.0"}
