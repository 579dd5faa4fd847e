"""Configs: every mistake is named, with its key and a suggestion; what is resolved reads back equal."""

from pathlib import Path

import pytest
import yaml

from dfad_seg.common.errors import InputError
from dfad_seg.config import dump_config, load_config, parse_config

CONFIGS = sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml"))
SMP = {"source": "smp", "arch": "Unet", "encoder_name": "resnet18"}
CAMVID = {"type": "camvid", "root": "x"}
DFAD = {
    "method": "dfad",
    "num_classes": 3,
    "teacher": {**SMP, "checkpoint": "t.pt"},
    "student": SMP,
    "generator": {"type": "dcgan"},
}


def changed(**changes):
    return {k: v for k, v in (DFAD | changes).items() if v is not ...}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_shipped_configs_are_valid_and_say_how_to_run_them(path):
    config = load_config(path)
    assert parse_config(yaml.safe_load(dump_config(config))) == config
    assert f"python tools/train_seg.py {path.relative_to(path.parents[2])}" in path.read_text()


WRONG = [
    ({"iteratons": 5}, "iteratons: unknown key. Did you mean 'iterations'"),
    ({"student_optimizer": {"type": "sgd", "lr": 0.1, "momentun": 0.9}}, "momentun: unknown key. Did you mean 'mom"),
    ({"teacher": {"source": "smpp"}}, "teacher: source 'smpp' is unknown. Did you mean 'smp'"),
    ({"teacher": {"arch": "Unet"}}, "teacher: source is missing"),
    ({"teacher": "t.pt"}, "teacher: a mapping with source and its options is needed, got 't.pt'"),
    ({"iterations": 0}, "iterations: input should be greater than 0, got 0"),
    ({"student_optimizer": {"type": "sgd"}}, "student_optimizer.lr: this key is needed"),
    ({"student_optimizer": {"type": "lion", "lr": 0.1}}, "student_optimizer: type 'lion' is unknown"),
    ({"student_optimizer": {"type": "sgd", "lr": float("nan")}}, "student_optimizer.lr"),
    ({"ema_decay": 1.0}, "ema_decay: input should be less than 1"),
    ({"method": "dfda"}, "unknown method 'dfda'. Did you mean 'dfad'"),
    ({"method": ...}, "method: this key is needed"),
    ({"teacher": ...}, "teacher: this key is needed"),
    ({"num_classes": ...}, "num_classes is needed where no dataset says it"),
    ({"num_classes": 1}, "num_classes is 1, and a softmax over one class is constant"),
    ({"focal_gamma": 2.0}, "method dfad does not use focal_gamma; remove"),
    ({"training_data": {"split": "train"}, "iterations": 0}, "(?s)greater than 0.*does not use training_data"),
    ({"evaluation": {"split": "val"}}, "evaluation needs dataset"),
    ({"dataset": CAMVID, "evaluation": {"crop_stride": [4, 4]}}, "the stride 4x4 needs a window"),
    ({"dataset": CAMVID, "evaluation": {"crop_size": [4, 4], "crop_stride": [5, 4]}}, "leave gaps"),
    ({"dataset": CAMVID, "evaluation": {"scales": [200.0]}}, "each above 0 and below 100"),
    ({"temperature": 2}, "temperature has no effect without one of jensen_shannon, kl"),
    ({"temperature": 2, "adversarial_loss": {"kl": 1}, "adversarial_weight": 0}, "temperature has no effect"),
    ({"activation_boundary": 0.1, "simultaneous": True}, "activation_boundary cannot go with simultaneous"),
    ({"interpolation": {"share": 1}, "activation_boundary": 0.1}, "interpolation.share leaves none"),
    (
        {"progressive_sizes": [[32, 32], [48, 64]], "image_size": [64, 64]},
        "progressive_sizes ends with 48x64, and image_size is 64x64",
    ),
    ({"replay": {"size": 64, "steps": 1, "final_steps": 9}}, "replay.final_steps needs a schedule that falls"),
    ({"replay": {"size": 2, "steps": 2}}, "replay.size: .* 2 cannot fill one"),
    ({"student_loss": {"mae": 0}}, "student_loss needs at least one discrepancy"),
    ({"student_loss": {"meu": 1}}, "unknown discrepancy 'meu'"),
    ({"image_size": [2**70, 64], "batch_size": 2**70}, "(?s)batch_size: .* 65536, got.*image_size.0: .* 65536, got"),
    ({"method": "random_noise"}, "method random_noise does not use generator"),
    ({"method": "supervised", "generator": ...}, "dataset: this key is needed"),
    ({"dataset": CAMVID | {"classes": ["a"]}}, "dataset.classes: unknown key"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=range(len(WRONG)))
def test_mistakes_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        parse_config(changed(**changes))


def test_all_mistakes_come_together():
    with pytest.raises(InputError) as caught:
        parse_config(changed(iterations=0, batchsize=4, schedule={"type": "cosine", "end": -1}))
    said = str(caught.value)
    assert said.count("\n") == 3 and all(key in said for key in ("iterations: ", "batchsize: ", "schedule.end: "))


def test_supervised_trains_one_network():
    both = {"method": "supervised", "teacher": SMP, "student": SMP, "dataset": CAMVID}
    with pytest.raises(InputError, match="give either teacher or student"):
        parse_config(both)
    config = parse_config({k: v for k, v in both.items() if k != "student"})
    assert config.trained_role == "teacher" and not config.data_free and config.training_data.split == "train"


def test_overrides(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(yaml.safe_dump(DFAD))
    config = load_config(file, ["seed=3", "schedule.type=cosine", "schedule.warmup=5", "generator={type: layout}"])
    assert (config.seed, config.schedule.name, config.schedule.options.warmup) == (3, "cosine", 5)
    assert config.generator.name == "layout"
    for wrong, message in (("seed", "key=value"), ("=3", "key=value"), ("seed.x=1", "a value, not a group")):
        with pytest.raises(InputError, match=message):
            load_config(file, ["seed=1", wrong])


def test_a_network_is_no_config(tmp_path):
    (tmp_path / "student.pt").write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(InputError, match="is no text"):
        load_config(tmp_path / "student.pt")
    with pytest.raises(InputError, match="Is a directory"):
        load_config(tmp_path)
