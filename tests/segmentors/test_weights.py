"""Checkpoint files: containers, prefixes, refusals, and the student file."""

import copy
import hashlib
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from safetensors.torch import save_file
from shared import tiny, trained_tiny
from torch import Tensor, nn

from dfad_seg.common.errors import InputError
from dfad_seg.common.reading import file_hash
from dfad_seg.common.tensors import digest, read_tensors
from dfad_seg.segmentors import (
    Segmentor,
    build_segmentor,
    find_state_dict,
    load_segmentor,
    load_weights,
    read_segmentor_file,
    save_segmentor,
    state_hash,
)
from dfad_seg.segmentors.containers import canonical

SMP = {"source": "smp", "arch": "DeepLabV3Plus", "encoder_name": "tu-test_efficientnet"}


@pytest.fixture
def segmentor() -> Segmentor:
    torch.manual_seed(7)
    return Segmentor(tiny(), num_classes=5)


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


LEFT_OUT = {"criterion.weight": torch.ones(5), "val_metrics.confmat": torch.ones(5, 5)}
CONTAINERS: dict[str, Any] = {
    "bare": lambda s: s,
    "safetensors": lambda s: s,
    "state_dict": lambda s: {"state_dict": s, "epoch": 3},
    "student": lambda s: {"student": s, "generator": {"weight": torch.zeros(2)}},
    "a Lightning module": lambda s: {"state_dict": prefixed(s, "net.") | {"mean": torch.ones(3), **LEFT_OUT}},
    "averaged": lambda s: prefixed(s, "module.") | {"n_averaged": torch.tensor(3)},
    "losses in the module itself": lambda s: {**s, "loss_fn.weight": torch.ones(5), "pixel_mean": torch.ones(3)},
    "twice the same": lambda s: {"model": s, "model_ema": {k: v.clone() for k, v in s.items()}},
    "all of them": lambda s: {"model": prefixed(s, "network.module._orig_mod.")},
    "without num_batches_tracked": lambda s: {k: v for k, v in s.items() if "num_batches" not in k},
}
LEFT_OUT_OF = {
    "a Lightning module": "mean, criterion.weight, val_metrics.confmat",
    "averaged": "n_averaged",
    "losses in the module itself": "loss_fn.weight, pixel_mean",
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("name", "before"), [("body", "network.module._orig_mod."), ("model", "model.")])
def test_a_wrapper_of_ones_own_takes_its_networks_weights(tmp_path: Path, name: str, before: str):
    network = trained_tiny()
    torch.save({"model": prefixed(network.state_dict(), before)}, tmp_path / "weights.pt")
    wrapped = nn.ModuleDict({name: tiny()})
    load_weights(Segmentor(wrapped, num_classes=5), tmp_path / "weights.pt")
    assert state_hash(wrapped[name]) == state_hash(network)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("container", list(CONTAINERS))
def test_containers_and_prefixes(segmentor: Segmentor, tmp_path: Path, container: str) -> None:
    trained, file = trained_tiny(), tmp_path / f"weights.{container}"
    (save_file if container == "safetensors" else torch.save)(CONTAINERS[container](trained.state_dict()), file)
    left_out = LEFT_OUT_OF.get(container)
    with nullcontext() if left_out is None else pytest.warns(UserWarning, match=f"left out, .*: {left_out}$"):
        load_weights(segmentor, file)
    images = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(segmentor.eval().network(images), trained(images), rtol=0, atol=0)


@pytest.mark.parametrize("nested", [True, False])
def test_several_weights_are_named_and_a_key_chooses(segmentor: Segmentor, tmp_path: Path, nested: bool):
    raw = trained_tiny().state_dict()
    mean = {key: value * 2 for key, value in raw.items()}
    content = {"model": raw, "model_ema": mean}
    if nested:
        content = {"state_dict": prefixed(raw, "model.") | prefixed(mean, "model_ema.module.")}
    torch.save(content, tmp_path / "both.pt")
    with pytest.raises(InputError, match="model.*, .*model_ema.*checkpoint_key"):
        load_weights(segmentor, tmp_path / "both.pt")
    load_weights(segmentor, tmp_path / "both.pt", "model_ema")
    assert state_hash(segmentor) == digest(mean)
    with pytest.raises(InputError, match="no weights under checkpoint_key 'ema'. It has: .*model_ema"):
        load_weights(segmentor, tmp_path / "both.pt", "ema")


@pytest.mark.parametrize(("name", "depth"), [("convnext_atto", 3), ("resnet10t", 4)])
def test_timms_own_names_for_an_encoder(tmp_path: Path, name: str, depth: int) -> None:
    torch.manual_seed(1)
    whole = timm.create_model(name)
    torch.save({"state_dict": whole.state_dict()}, tmp_path / "timm.pth")
    options = {"arch": "Unet", "encoder_name": f"tu-{name}", "encoder_depth": depth, "decoder_channels": [8] * depth}
    network = build_segmentor("smp", num_classes=2, encoder_checkpoint=tmp_path / "timm.pth", **options).network
    theirs = {canonical(key): value for key, value in whole.state_dict().items()}
    own = network.encoder.model.state_dict()
    assert all(torch.equal(value, theirs[canonical(key)]) for key, value in own.items())
    # The other way: the names of features_only, for the same encoder.
    torch.save(own, tmp_path / "features.pth")
    build_segmentor("smp", num_classes=2, encoder_checkpoint=tmp_path / "features.pth", **options)


def test_a_longer_network_of_the_family_is_no_encoder(tmp_path: Path) -> None:
    longer = smp.encoders.get_encoder("resnet34", weights=None)
    torch.save(longer.state_dict(), tmp_path / "longer.pth")
    with pytest.raises(InputError, match="unexpected.*layer1.2"):
        build_segmentor("smp", num_classes=2, arch="Unet", encoder_name="resnet18",
                        encoder_checkpoint=tmp_path / "longer.pth")  # fmt: skip


def test_names_that_smp_itself_translates(tmp_path: Path) -> None:
    # smp 0.3 had no `.model` level in these encoders; smp's own loader still takes such files.
    spec = {**SMP, "encoder_name": "tu-mobilenetv3_small_050", "num_classes": 3}
    torch.manual_seed(0)
    old = build_segmentor(**spec)
    state = {key.replace("encoder.model.", "encoder."): v for key, v in old.network.state_dict().items()}
    torch.save(state, tmp_path / "old.pt")
    assert state_hash(build_segmentor(**spec, checkpoint=tmp_path / "old.pt")) == state_hash(old)


# ---- refusals: one error, and nothing loaded ----


def zeros(*shape: int, **options: Any) -> Tensor:
    return torch.zeros(shape, **options)


# (what is put into a good state, None to remove; what is said)
MISMATCHES: list[tuple[dict[str, Tensor | None], list[str]]] = [
    ({"features.weight": None}, ["missing, 1 of 9: features.weight"]),
    ({f"extra{i}": zeros(1) for i in range(20)}, ["unexpected, 20", "extra4 and 15 more"]),
    ({"features.weight": zeros(8, 3, 5, 5)}, ["features.weight is (8, 3, 5, 5), needed (8, 3, 3, 3)", "another arch"]),
    ({"norm.bias": None, "more": zeros(1), "norm.weight": zeros(9)}, ["missing", "unexpected", "norm.weight is (9,)"]),
    ({"classifier.weight": zeros(7, 8, 1, 1), "classifier.bias": zeros(7)}, ["the checkpoint has 7 classes, num_cl"]),
    ({"features.weight": zeros(8, 3, 3, 3, dtype=torch.int8)}, ["features.weight is torch.int8"]),
    ({"norm.running_var": zeros(8) / 0}, ["not finite", "norm.running_var"]),
    ({"classifier.bias": 1 / zeros(5)}, ["not finite", "classifier.bias"]),
]


@pytest.mark.parametrize(("change", "says"), MISMATCHES, ids=range(len(MISMATCHES)))
def test_mismatches(segmentor: Segmentor, tmp_path: Path, change: Any, says: list[str]) -> None:
    path, before = tmp_path / "weights.pt", state_hash(segmentor)
    state = trained_tiny().state_dict() | change
    torch.save({key: value for key, value in state.items() if value is not None}, path)
    with pytest.raises(InputError) as caught:
        load_weights(segmentor, path)
    assert [part for part in [str(path), *says] if part not in str(caught.value)] == []
    assert state_hash(segmentor) == before


def test_other_things_than_checkpoints(tmp_path: Path, opaque: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="source 'torchscript'"):
        read_tensors(opaque["script"])
    for content in ({"epoch": 3, "lr": 0.1}, [1, 2], torch.zeros(3), {}, {1: torch.zeros(1)}):
        torch.save(content, tmp_path / "other.pt")
        with pytest.raises(InputError, match="no state dict"):
            find_state_dict(read_tensors(tmp_path / "other.pt"), tmp_path / "other.pt")


# ---- the student file ----


def test_student_file_round_trip(tmp_path: Path) -> None:
    torch.manual_seed(3)
    options = {"mean": [0.5, 0.4, 0.3], "std": [0.5, 0.5, 0.25], "decoder_channels": 32}
    first = tmp_path / "first.pt"
    torch.save(build_segmentor(**SMP, num_classes=3, **options).network.state_dict(), first)
    student = build_segmentor(**SMP, num_classes=3, classes=["sky", "road", "car"], checkpoint=first, **options).eval()
    assert state_hash(student) == digest(torch.load(first, weights_only=True))
    first.unlink()  # what is saved needs it no more
    palette = [(0, 0, 0), (128, 64, 128), (64, 0, 128)]
    save_segmentor(tmp_path / "student.pt", student, palette=palette, extra={"miou": 0.5})

    content = read_segmentor_file(tmp_path / "student.pt")
    assert content["classes"] == ["sky", "road", "car"]
    assert content["palette"] == [[0, 0, 0], [128, 64, 128], [64, 0, 128]]
    assert content["extra"] == {"miou": 0.5} and "checkpoint" not in content["spec"]

    loaded = load_segmentor(tmp_path / "student.pt", freeze=True)
    images = torch.rand(2, 3, 20, 31)
    with torch.no_grad():
        assert torch.equal(loaded(images), student(images))
    assert not loaded.train().training and loaded.classes == ("sky", "road", "car")
    assert state_hash(loaded) == state_hash(student)

    # The same file is a checkpoint for a segmentor built elsewhere, and for the plain network.
    load_weights(build_segmentor(**SMP, num_classes=3, **options), tmp_path / "student.pt")
    plain = copy.deepcopy(student.network)
    plain.load_state_dict(find_state_dict(read_tensors(tmp_path / "student.pt"), "student.pt"), strict=True)


def test_the_hash_is_of_names_types_shapes_and_bytes(tmp_path: Path) -> None:
    linear = nn.Linear(2, 2, bias=False)
    expected = hashlib.sha256(b"weight torch.float32 (2, 2)\n" + linear.weight.detach().numpy().tobytes())
    assert state_hash(linear) == expected.hexdigest()
    (tmp_path / "f").write_bytes(b"abc")
    assert file_hash(tmp_path / "f") == hashlib.sha256(b"abc").hexdigest()


def test_student_file_refusals(tmp_path: Path, segmentor: Segmentor) -> None:
    path, spec = tmp_path / "x.pt", {"source": "factory", "factory": "torch.nn:Conv2d", "kwargs": {}}
    for given, options, says in (
        (None, {}, "no spec"),
        ({**spec, "thing": prefixed}, {}, "spec.thing is a function"),
        (spec, {"classes": ["sky"]}, "classes has 1"),
    ):
        segmentor.spec = given
        with pytest.raises(InputError, match=says):
            save_segmentor(path, segmentor, **options)
        assert not path.exists()
    save_segmentor(path, build_segmentor(**SMP, num_classes=3, decoder_channels=16))
    content, key = torch.load(path, weights_only=True), "segmentation_head.0.weight"
    other = content["state_dict"] | {key: content["state_dict"][key] + 1}
    stranger = {"source": "cut", "of": {"source": "factory", "factory": "os:mkdir"}, "widths": {}}
    for change, says in (
        ({"format": "x"}, "not a segmentor file"),
        ({"version": 2}, "version 2"),
        ({"spec": {}}, "incomplete"),
        ({"state_dict": other}, "damaged: its weights are not those that were saved"),
        ({"spec": content["spec"] | {"decoder_channels": 30000}}, "far fewer weights"),
        ({"spec": content["spec"] | {"num_classes": 5_000_000}}, "num_classes"),
        (
            {"spec": content["spec"] | {"encoder_options": {"checkpoint_path": "/tmp/x"}}},
            "checkpoint_path: unknown key",
        ),
        ({"spec": content["spec"] | {"source": "saved"}}, "another file"),
        ({"spec": content["spec"] | stranger}, "runs code"),
        ({"spec": content["spec"] | {"mean": [123.7, 116.3, 103.5]}}, "set input_scale to 255|makes no sense"),
    ):
        torch.save(content | change, path)
        with pytest.raises(InputError, match=says):
            load_segmentor(path)
