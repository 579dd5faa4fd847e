"""Networks of transformers, against the package itself; tiny ones from configurations, and no network access."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dfad_seg.common.errors import InputError
from dfad_seg.exporting import export
from dfad_seg.recipes import inspect_teacher, load_config, train
from dfad_seg.recipes.sources import open_source
from dfad_seg.segmentors import (
    CutOptions,
    build_segmentor,
    count_parameters,
    cut,
    inspect_file,
    load_segmentor,
    save_segmentor,
    state_hash,
)
from dfad_seg.segmentors.cut_widths import find_widths

transformers = pytest.importorskip("transformers", reason="transformers is not installed: pip install transformers")

NAMES = ("sky", "road", "tree", "car", "pole")
VIT = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16, "image_size": 64}
MODELS: dict[str, dict[str, Any]] = {
    "segformer": {
        "depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 16, 16], "num_attention_heads": [1, 1, 2, 2],
        "decoder_hidden_size": 16,
    },
    "upernet": {
        "hidden_size": 16,
        "backbone_config": {
            "model_type": "convnext", "depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 16, 16],
            "out_features": ["stage1", "stage2", "stage3", "stage4"],
        },
    },
    "mobilevit": {
        "hidden_sizes": [8, 8, 8], "neck_hidden_sizes": [4, 4, 8, 8, 8, 8, 16], "num_attention_heads": 2,
        "aspp_out_channels": 16,
    },
    "beit": VIT | {"out_indices": [1, 2, 3, 4], "use_relative_position_bias": True},
    "dpt": VIT | {"backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [8] * 4, "fusion_hidden_size": 8},
}  # fmt: skip
SEGFORMER = {"model_type": "segformer", **MODELS["segformer"]}
PROCESSOR = {"image_processor_type": "SegformerImageProcessor", "do_resize": False, "image_mean": [0.5, 0.4, 0.3],
             "image_std": [0.2, 0.3, 0.4]}  # fmt: skip
# What a class has by default, BGR or mean and std of 0.5, stands in no file.
OWN = {
    kind: {"image_processor_type": f"{name}ImageProcessor", "do_resize": False, "do_center_crop": False}
    for kind, name in (("mobilevit", "MobileViT"), ("beit", "Beit"))
}


def written(folder: Path, kind: str = "segformer", processor: dict[str, Any] | None = None) -> Path:
    """A folder as a user has it: random weights that are not the initial ones, five named classes."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, id2label=dict(enumerate(NAMES)), **MODELS[kind])
    network = transformers.AutoModelForSemanticSegmentation.from_config(config)
    with torch.no_grad():
        for parameter in network.parameters():
            deep = kind == "mobilevit"  # with less, its logits are the same for all images
            parameter += (0.1 if not deep else 0.3 if parameter.ndim > 1 else 1.0) * torch.randn_like(parameter)
    network.save_pretrained(folder)
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def theirs(folder: Path, photo: np.ndarray) -> Tensor:
    """The logits that a user of transformers gets for an RGB photo (H, W, 3) of bytes, at the photo's size."""
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    network = transformers.AutoModelForSemanticSegmentation.from_pretrained(folder).eval()
    with torch.no_grad():
        logits = network(**processor(photo, return_tensors="pt")).logits
    return F.interpolate(logits, photo.shape[:2], mode="bilinear", align_corners=False)


def photo_of(height: int, width: int) -> tuple[np.ndarray, Tensor]:
    """The same noise as bytes (H, W, 3) and as an image (1, 3, H, W) in [0, 1]."""
    photo = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return photo, torch.from_numpy(photo).permute(2, 0, 1)[None] / 255


@pytest.mark.parametrize("kind", MODELS)
def test_it_answers_as_the_package_does_and_comes_back_from_a_file(kind: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "folder", kind, OWN.get(kind, PROCESSOR))
    segmentor = build_segmentor("transformers", num_classes=5, pretrained=str(folder)).eval()
    assert segmentor.classes == NAMES
    photo, image = photo_of(64, 64) if kind == "dpt" else photo_of(64, 96)
    with torch.no_grad():
        ours = segmentor(image)
    torch.testing.assert_close(ours, theirs(folder, photo), rtol=1e-4, atol=1e-4)
    if kind == "dpt":
        assert segmentor.fixed_size == (64, 64)
    else:
        assert segmentor(torch.rand(2, 3, 67, 85)).shape == (2, 5, 67, 85)
    save_segmentor(tmp_path / "student.pt", segmentor)
    again = load_segmentor(tmp_path / "student.pt")
    torch.testing.assert_close(again(image), ours, rtol=1e-4, atol=1e-4)
    back = export(again, tmp_path / "back", format="transformers").path
    assert sorted(path.name for path in back.glob("*.safetensors")) == ["model.safetensors"]
    torch.testing.assert_close(theirs(back, photo), ours, rtol=1e-4, atol=1e-4)
    assert json.loads((back / "config.json").read_text())["id2label"]["4"] == "pole"


def test_a_student_begins_with_a_configuration_or_with_other_weights(tmp_path: Path) -> None:
    torch.manual_seed(1)
    random = build_segmentor("transformers", num_classes=3, model=SEGFORMER)
    folder = written(tmp_path / "folder", processor=PROCESSOR)
    begun = build_segmentor("transformers", num_classes=3, pretrained=str(folder), new_head=True)
    assert random.network.config.num_labels == begun.network.config.num_labels == 3
    given = build_segmentor("transformers", num_classes=5, pretrained=str(folder))
    assert state_hash(begun.network.segformer) == state_hash(given.network.segformer)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda folder: (folder / "preprocessor_config.json").unlink(), {}, "Give mean and std"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), {}, "safetensors"),
        (lambda folder: None, {"num_classes": 4}, "answers 5 classes.*new_head"),
        (lambda folder: None, {"model": {"model_type": "segformer"}}, "give one of pretrained"),
        (lambda folder: None, {"pretrained": "./tests_"}, "network ./tests_ does not exist"),
        (lambda folder: None, {"pretrained": None, "model": {"model_type": "nonsense"}}, "nonsense"),
        (lambda folder: None, {"pretrained": None, "model": {"model_type": "upernet", "backbone": "a/b"}}, "fetched"),
    ],
)
def test_what_does_not_fit_is_said(change: Any, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "folder", processor=PROCESSOR)
    change(folder)
    with pytest.raises(InputError, match=message):
        build_segmentor("transformers", **{"num_classes": 5, "pretrained": str(folder)} | options)


def test_a_classifier_is_no_teacher(tmp_path: Path) -> None:
    network = transformers.SegformerForImageClassification(transformers.SegformerConfig(**MODELS["segformer"]))
    network.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    with pytest.raises(InputError, match="lacks weights for decode_head"):
        build_segmentor("transformers", num_classes=2, pretrained=str(tmp_path))
    assert build_segmentor("transformers", num_classes=2, pretrained=str(tmp_path), new_head=True)


def test_smps_own_folder(tmp_path: Path) -> None:
    import segmentation_models_pytorch as smp

    network = smp.FPN("resnet18", encoder_weights=None, classes=4, decoder_merge_policy="cat").eval()
    network.save_pretrained(str(tmp_path / "folder"))
    segmentor = build_segmentor("smp", num_classes=4, pretrained=str(tmp_path / "folder")).eval()
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(segmentor(image), network(segmentor.normalise(image)))
    save_segmentor(tmp_path / "x.pt", segmentor)
    torch.testing.assert_close(load_segmentor(tmp_path / "x.pt")(image), segmentor(image))
    with pytest.raises(InputError, match="has classes 4, and 5 are needed"):
        build_segmentor("smp", num_classes=5, pretrained=str(tmp_path / "folder"))
    made_for_any = smp.DPT("tu-vit_tiny_patch16_224", encoder_weights=None, classes=4, dynamic_img_size=True)
    made_for_any.save_pretrained(str(tmp_path / "any"))
    assert build_segmentor("smp", num_classes=4, pretrained=str(tmp_path / "any")).fixed_size is None
    for place in (tmp_path / "folder", tmp_path / "folder" / "model.safetensors"):
        found = inspect_file(place)
        assert (found.source, found.num_classes, found.exact) == ("smp", 4, True)


def test_a_segformer_is_cut_but_for_its_attention(tmp_path: Path) -> None:
    teacher = build_segmentor("transformers", num_classes=5, model=SEGFORMER).eval()
    names = {width.name.split(".")[-1] for width in find_widths(teacher, (64, 64))[0]}
    assert names == {"fc1", "proj", "linear_fuse"}
    options = CutOptions(macs=0.7, importance="magnitude", compensate=False)
    student = cut(teacher, options, (64, 64)).student
    assert count_parameters(student) < count_parameters(teacher)
    save_segmentor(tmp_path / "x.pt", student)
    image = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(load_segmentor(tmp_path / "x.pt")(image), student(image))
    with pytest.raises(InputError, match="cannot hold a network that was cut"):
        export(student, tmp_path / "x", format="transformers")


def test_linear_layers_over_images_are_cut_and_channels_that_go_together_without_end_are_not() -> None:
    models = [{"model_type": kind, **MODELS[kind]} for kind in ("upernet", "dpt")]
    upernet, dpt = (build_segmentor("transformers", num_classes=5, model=model).eval() for model in models)
    assert cut(upernet, CutOptions(macs=0.6), (64, 64), torch.rand(8, 3, 64, 64)).macs_share <= 0.6
    with pytest.raises(InputError, match="cannot follow the channels of this network .*without end"):
        find_widths(dpt, (64, 64))


@pytest.mark.slow
def test_a_run_from_inspection_to_the_hub_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = written(tmp_path / "folder", processor=PROCESSOR)
    inspect_teacher(folder, out=tmp_path / "mine.yaml", student="other")
    assert "source: transformers, pretrained" in capsys.readouterr().out
    tiny = ["iterations=2", "batch_size=4", "image_size=[32,32]", "progressive_sizes=[]", "report=short",
            "replay={size: 8, steps: 1}", "precision=32-true"]  # fmt: skip
    student = {"source": "transformers", "model": SEGFORMER}
    config = load_config(tmp_path / "mine.yaml", [*tiny, f"student={json.dumps(student)}"])
    assert open_source(config, folder).record()["role"] == "teacher"  # no folder of predictions
    trained = load_segmentor(train(config, tmp_path / "run"))
    assert trained.classes == NAMES
    back = export(trained, tmp_path / "back", format="transformers").path
    photo, image = photo_of(64, 64)
    torch.testing.assert_close(theirs(back, photo), trained(image), rtol=1e-4, atol=1e-4)
