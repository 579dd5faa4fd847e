"""Students in MMSegmentation's own tools: the unmodified init_model, inference_model and tools/test.py."""

import numpy as np
import pytest
import torch
from PIL import Image

from dfad_seg.common.errors import InputError
from dfad_seg.datasets import EvalTransform, build_dataset
from dfad_seg.evaluation import Inference, evaluate_miou
from dfad_seg.exporting import export
from dfad_seg.segmentors import build_segmentor

SMALL = {"encoder_name": "tu-mobilenetv3_small_050", "encoder_depth": 3, "decoder_channels": [16, 8, 8]}
STUDENTS = {
    "smp": {"arch": "Unet", **SMALL},
    "torchvision": {"arch": "lraspp_mobilenet_v3_large", "mean": [0.4, 0.5, 0.6], "channel_order": "bgr"},
    "mmseg": {},
}


@pytest.fixture(scope="session")
def student(tiny_config):
    def build(source):
        torch.manual_seed(1)
        options = {"config": tiny_config} if source == "mmseg" else STUDENTS[source]
        network = build_segmentor(source, num_classes=4, **options)
        with torch.no_grad():
            for _ in range(3):  # running statistics of its own, so that it tells classes apart
                network.train()(torch.rand(4, 3, 64, 64))
            # And no class in favour, so that all of them occur.
            logits = network.eval()(torch.rand(4, 3, 64, 64))
            convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
            last = next(m for m in convolutions if m.out_channels == 4 and m.bias is not None)
            last.bias -= logits.mean(dim=(0, 2, 3))
        return network

    return build


def exported(network, folder, base=None):
    """The config that the format mmseg writes; its checkpoint is beside it."""
    base = None if base is None else str(base)
    return export(network, folder / "exported", format="mmseg", base=base).path / "student.py"


def ours(network, folders, helpers, inference=None):
    options = {"img_dir": "img_dir", "ann_dir": "ann_dir", "img_suffix": ".png", "classes": helpers.classes}
    dataset = build_dataset("folders", folders, "all", EvalTransform(), **options)
    loader = torch.utils.data.DataLoader(dataset, batch_size=1)
    inference = inference or Inference()
    return evaluate_miou(network, loader, num_classes=4, classes=tuple(helpers.classes), inference=inference)


@pytest.mark.parametrize("source", STUDENTS)
def test_an_exported_student_scores_as_ours(source, student, tiny_config, folders, tool, tmp_path, helpers):
    from mmseg.apis import inference_model, init_model

    network = student(source)
    config = exported(network, tmp_path, tiny_config)
    checkpoint = config.with_suffix(".pth")
    model = init_model(str(config), str(checkpoint), device="cpu")
    model.load_state_dict(torch.load(checkpoint, weights_only=True)["state_dict"], strict=True)
    assert model.dataset_meta["classes"] == helpers.classes and model.dataset_meta["palette"] == helpers.palette
    assert ("dfad_seg.exporting.mmseg_model" in config.read_text()) == (source != "mmseg")

    path = sorted((folders / "img_dir").iterdir())[0]
    image = torch.from_numpy(np.asarray(Image.open(path))).permute(2, 0, 1)[None].contiguous() / 255
    with torch.no_grad():
        expected = network(image)[0]
    result = inference_model(model, str(path))
    assert torch.equal(result.seg_logits.data, expected)
    assert torch.equal(result.pred_sem_seg.data[0], expected.argmax(0))

    whole = ours(network, folders, helpers)
    tool("test", config, checkpoint, "--work-dir", tmp_path / "whole", "--show-dir", tmp_path / "shown")
    slide = ours(network, folders, helpers, Inference(crop_size=(32, 32), crop_stride=(20, 20)))
    options = ["model.test_cfg.mode=slide", "model.test_cfg.crop_size=(32,32)", "model.test_cfg.stride=(20,20)"]
    tool("test", config, checkpoint, "--work-dir", tmp_path / "slide", "--cfg-options", *options)
    for work_dir, metrics in (("whole", whole), ("slide", slide)):
        found = helpers.printed(tmp_path / work_dir)
        for name in ("aAcc", "mIoU", "mAcc"):
            assert found[name] == round(100 * getattr(metrics, name), 2), (work_dir, name)
    assert whole.mIoU != slide.mIoU
    assert len(list(tmp_path.rglob("shown/**/*.png"))) == 4


def test_another_checkpoint_is_refused(student, tiny_config, tmp_path):
    from mmseg.apis import init_model

    config = exported(student("smp"), tmp_path, tiny_config)
    content = torch.load(config.with_suffix(".pth"), weights_only=True)
    key = next(iter(content["state_dict"]))
    content["state_dict"]["other"] = content["state_dict"].pop(key)
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(InputError, match="missing 1 of .*, unexpected 1 .*other"):
        init_model(str(config), str(tmp_path / "other.pth"), device="cpu")


def test_what_cannot_be_exported(student, tiny_config, tmp_path):
    network = student("smp")
    network.spec = None
    with pytest.raises(InputError, match="built by hand"):
        exported(network, tmp_path)
    torch.manual_seed(0)
    other = build_segmentor("smp", num_classes=3, arch="Unet", encoder_name="tu-mobilenetv3_small_050")
    with pytest.raises(InputError, match="data set has 4 classes, and the network answers 3"):
        exported(other, tmp_path, tiny_config)
    assert list(tmp_path.iterdir()) == []
