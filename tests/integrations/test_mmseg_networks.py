"""Networks of MMSegmentation as teachers and students, against MMSegmentation itself."""

import pickle
import socket
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from dfad_seg.common.errors import InputError
from dfad_seg.common.tensors import read_tensors
from dfad_seg.exporting import export
from dfad_seg.segmentors import build_segmentor, find_state_dict, load_segmentor, save_segmentor


def images_of(paths):
    stacked = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
    # Contiguous as theirs are: other kernels round otherwise.
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous().float() / 255


@torch.no_grad()
def their_logits(model, paths):
    """Their own pipeline from the file on: reading, packing, preprocessor, encode_decode, postprocessing's crop."""
    import mmseg.datasets  # noqa: F401  (registers the transforms)
    from mmcv.transforms import Compose
    from mmengine.dataset import pseudo_collate

    pipeline = Compose([{"type": "LoadImageFromFile"}, {"type": "PackSegInputs"}])
    data = model.data_preprocessor(pseudo_collate([pipeline({"img_path": str(path)}) for path in paths]), False)
    metas = [sample.metainfo for sample in data["data_samples"]]
    logits = model.encode_decode(data["inputs"], metas)
    height, width = metas[0]["ori_shape"]
    return logits[..., :height, :width]


NORMALISATIONS = {
    "bgr": "model.data_preprocessor.bgr_to_rgb=False",
    "rgb": "model.data_preprocessor.bgr_to_rgb=True",
    "no normalisation": "model.data_preprocessor.mean=None model.data_preprocessor.std=None",
    "classes by themselves": "model.decode_head.norm_cfg.type=torch.nn.SyncBatchNorm",
    "padded to a multiple": "model.data_preprocessor.test_cfg={'size_divisor':32}",
    "padded to a size": "model.data_preprocessor.test_cfg={'size':(64,80)} model.data_preprocessor.pad_val=3",
}


@pytest.mark.parametrize("case", NORMALISATIONS)
def test_logits_are_theirs(case, tiny_config, trained, folders):
    from mmseg.apis import init_model

    options = {}
    for item in NORMALISATIONS[case].split(" "):
        key, value = item.split("=", 1)
        options[key] = eval(value)
    theirs = init_model(str(tiny_config), str(trained), device="cpu", cfg_options=options)
    ours = build_segmentor("mmseg", num_classes=4, config=tiny_config, cfg_options=options, checkpoint=trained).eval()
    paths = sorted((folders / "img_dir").iterdir())
    with torch.no_grad():
        found = ours(images_of(paths))
    assert not any(isinstance(module, torch.nn.SyncBatchNorm) for module in ours.modules())
    expected = their_logits(theirs, paths)
    assert found.shape == (4, 4, 37, 53)
    assert (found - expected).abs().max() == 0
    assert expected.std() > 0.01


def test_nothing_is_downloaded_and_what_serves_training_alone_is_left_out(tiny_config, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("something wants the network"))
    network = build_segmentor("mmseg", num_classes=4, config=tiny_config)
    assert not any("auxiliary" in key for key in network.network.state_dict())
    assert network.train()(torch.rand(2, 3, 64, 64)).shape == (2, 4, 64, 64)  # SyncBN refuses to train on a CPU


def test_classes_and_colours(tiny_config, trained, tmp_path, helpers):
    assert build_segmentor("mmseg", num_classes=4, config=tiny_config).classes == tuple(helpers.classes)
    content = {
        "state_dict": find_state_dict(read_tensors(trained), trained),
        "meta": {"CLASSES": list("abcd"), "PALETTE": [[i] * 3 for i in range(4)]},
    }
    torch.save(content, tmp_path / "old.pth")
    old = build_segmentor("mmseg", num_classes=4, config=tiny_config, checkpoint=tmp_path / "old.pth")
    assert old.classes == tuple("abcd") and old.palette == [[i] * 3 for i in range(4)]
    named = build_segmentor(
        "mmseg", num_classes=4, config=tiny_config, checkpoint=tmp_path / "old.pth", classes=list("wxyz")
    )
    assert named.classes == tuple("wxyz")


def test_a_training_checkpoint_is_read_safely_and_strictly(tiny_config, trained, tmp_path):
    content = torch.load(trained, weights_only=False)
    assert type(content["message_hub"]["log_scalars"]["train/loss"]).__name__ == "HistoryBuffer"
    assert any("auxiliary_head" in key for key in content["state_dict"])
    with pytest.raises(pickle.UnpicklingError):
        torch.load(trained, weights_only=True)
    network = build_segmentor("mmseg", num_classes=4, config=tiny_config, checkpoint=trained)
    for key, value in network.network.model.state_dict().items():
        assert torch.equal(value, content["state_dict"][key])

    state = content["state_dict"]
    torch.save({"state_dict": state | {"more.weight": torch.ones(1)}}, tmp_path / "wrong.pth")
    with pytest.raises(InputError, match="unexpected.*more.weight"):
        build_segmentor("mmseg", num_classes=4, config=tiny_config, checkpoint=tmp_path / "wrong.pth")
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "ddp.pth")
    build_segmentor("mmseg", num_classes=4, config=tiny_config, checkpoint=tmp_path / "ddp.pth")


def test_a_saved_network_needs_no_config(tiny_config, trained, tmp_path, helpers):
    network = build_segmentor("mmseg", num_classes=4, config=tiny_config, checkpoint=trained).eval()
    save_segmentor(tmp_path / "student.pt", network)
    again = load_segmentor(tmp_path / "student.pt")
    images = torch.rand(2, 3, 37, 53)
    with torch.no_grad():
        assert torch.equal(again(images), network(images))
    assert again.classes == tuple(helpers.classes) and again.palette == helpers.palette
    assert "config" not in again.spec and again.spec["model"]["type"] == "EncoderDecoder"
    save_segmentor(tmp_path / "again.pt", again)
    assert torch.equal(load_segmentor(tmp_path / "again.pt")(images), network(images))


def test_a_saved_network_imports_nothing_that_it_names(tiny_config, tmp_path, monkeypatch):
    network = build_segmentor("mmseg", num_classes=4, config=tiny_config)
    (tmp_path / "trap_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    network.spec = {**network.spec, "model": {**network.spec["model"], "backbone": {"type": "trap_module"}}}
    save_segmentor(tmp_path / "trap.pt", network)
    with pytest.raises(InputError, match="'trap_module', which is not registered"):
        load_segmentor(tmp_path / "trap.pt")
    assert "trap_module" not in sys.modules


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"config": "nowhere.py"}, "nowhere.py does not exist"),
        ({}, "needs the option 'config'"),
        ({"num_classes": 7}, r"answers 4 classes, and 7 are needed.*model.decode_head.num_classes: 7"),
        ({"cfg_options": {"model.backbone.type": "NoSuchNet"}}, "cannot build.*NoSuchNet"),
    ],
)  # fmt: skip
def test_bad_input(options, message, tiny_config):
    given = {"num_classes": 4, "config": tiny_config} | options
    if not options:
        given.pop("config")
    with pytest.raises(InputError, match=message):
        build_segmentor("mmseg", **given)


def test_a_mask_of_one_grey_channel_is_theirs(tiny_config, tmp_path):
    """Two classes by their own threshold, in their network, in ours and in what is exported."""
    from mmseg.structures import SegDataSample

    head = {"num_classes": 2, "out_channels": 1, "threshold": 0.4, "loss_decode.use_sigmoid": True}
    changes = {f"model.decode_head.{name}": value for name, value in head.items()} | {"model.backbone.in_channels": 1}
    read = {"mean": [80.0], "std": [50.0], "bgr_to_rgb": False}
    changes |= {f"model.data_preprocessor.{name}": value for name, value in read.items()}
    torch.manual_seed(0)
    segmentor = build_segmentor("mmseg", num_classes=2, config=tiny_config, cfg_options=changes).eval()
    assert (segmentor.in_channels, segmentor.out_channels, segmentor.threshold) == (1, 1, 0.4)
    images = torch.rand(2, 1, 64, 96)
    with torch.no_grad():  # half of the pixels are above the threshold
        background, above = segmentor(images).unbind(1)
        segmentor.network.model.decode_head.conv_seg.bias -= (above - background).median()
    samples = [SegDataSample(metainfo={"ori_shape": (64, 96), "img_shape": (64, 96)}) for _ in images]
    theirs = segmentor.network.model.test_step({"inputs": list(255 * images), "data_samples": samples})
    masks = torch.stack([sample.pred_sem_seg.data[0] for sample in theirs])
    with torch.no_grad():
        assert torch.equal(segmentor(images).argmax(1), masks.long()) and 0 < masks.float().mean() < 1
    with torch.no_grad():  # whose probabilities are 0 and 1
        segmentor.network.model.decode_head.conv_seg.weight *= 1e3
    data = "dict(dataset=dict(metainfo=dict(classes=['car'], palette=[[0, 0, 142]])))"
    (base := tmp_path / "one.py").write_text(
        f"_base_ = '{tiny_config}'\ndefault_scope = None\ntest_dataloader = {data}\n"
    )
    smp = {"arch": "Unet", "encoder_name": "tu-mobilenetv3_small_050", "output": "sigmoid"}
    for network in (segmentor, build_segmentor("smp", num_classes=2, **smp).eval()):
        export(network, tmp_path / network.spec["source"], format="mmseg", base=str(base))  # compares the answers
    save_segmentor(tmp_path / "saved.pt", segmentor)
    assert load_segmentor(tmp_path / "saved.pt").threshold == 0.4
