"""Configs: every mistake is named, with its key and a suggestion; what is resolved reads back equal."""

from pathlib import Path

import pytest
import yaml

from dfad_seg.common.errors import InputError
from dfad_seg.config import dump_config, load_config, parse_config

CONFIGS = sorted((Path(__file__).parent.parent / "configs").rglob("*.yaml"))

DFAD = {
    "method": "dfad",
    "num_classes": 3,
    "teacher": {"source": "smp", "arch": "unet", "checkpoint": "t.pt"},
    "student": {"source": "smp", "arch": "unet"},
    "generator": {"type": "dcgan"},
}


def changed(**changes):
    return {k: v for k, v in (DFAD | changes).items() if v is not ...}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_shipped_configs_are_valid_and_say_how_to_run_them(path):
    config = load_config(path)
    assert parse_config(yaml.safe_load(dump_config(config))) == config
    tool = "train_seg"
    assert f"python tools/{tool}.py {path.relative_to(path.parent.parent.parent)}" in path.read_text()


def test_defaults_are_the_papers():
    config = parse_config(DFAD)
    assert (config.iterations, config.student_steps, config.batch_size) == (15_000, 5, 64)
    assert config.image_size == (128, 128)
    s, g = config.student_optimizer, config.generator_optimizer
    assert (s.type, s.lr, s.momentum, s.weight_decay) == ("sgd", 0.1, 0.9, 5e-4)
    assert (g.type, g.lr) == ("adam", 1e-3)
    assert config.student_loss == {"mae": 1.0} and config.adversarial_loss == {"log_mae": 1.0}
    assert config.student_norm == "update"


WRONG = [
    ({"iteratons": 5}, "iteratons: unknown key. Did you mean 'iterations'"),
    ({"student_optimizer": {"type": "sgd", "lr": 0.1, "momentun": 0.9}}, "momentun: unknown key. Did you mean 'mom"),
    ({"schedule": {"type": "cosine", "warmups": 5}}, "schedule.warmups: unknown key. Did you mean 'warmup'"),
    ({"iterations": 0}, "iterations: input should be greater than 0, got 0"),
    ({"iterations": "many"}, "iterations: .*got 'many'"),
    ({"image_size": 128}, "image_size"),
    ({"image_size": [128, -1]}, r"image_size.1: input should be greater than 0, got -1"),
    ({"image_size": [1, 2, 3]}, "image_size"),
    ({"student_optimizer": {"type": "sgd"}}, "student_optimizer.lr: this key is needed"),
    ({"student_optimizer": {"type": "lion", "lr": 0.1}}, "student_optimizer.type"),
    ({"student_optimizer": {"type": "sgd", "lr": float("nan")}}, "student_optimizer.lr"),
    ({"student_optimizer": {"type": "sgd", "lr": -1}}, "greater than 0, got -1"),
    ({"ema_decay": 1.0}, "ema_decay: input should be less than 1"),
    ({"method": "dfda"}, "method: input should be 'supervised'"),
    ({"method": ...}, "method: this key is needed"),
    ({"teacher": ...}, "method dfad needs teacher"),
    ({"generator": ..., "student": ...}, "method dfad needs generator, student"),
    ({"teacher": {"arch": "unet"}}, "teacher.source: this key is needed"),
    ({"num_classes": ...}, "num_classes is needed where no dataset says it"),
    ({"focal_gamma": 2.0}, "method dfad does not use focal_gamma; remove"),
    ({"training_data": {"split": "train"}}, "does not use training_data"),
    ({"layout_consistency": 1.0}, "layout_consistency needs generator.type: layout"),
    ({"evaluation": {"split": "val"}}, "evaluation needs dataset"),
    ({"distillation_temperature": 2}, "distillation_temperature has no effect without one of jensen_shannon, kl"),
    (
        {"distillation_temperature": 2, "adversarial_loss": {"kl": 1}, "adversarial_weight": 0},
        "distillation_temperature has no effect",
    ),
    ({"interpolation": "cutmixx"}, "interpolation: input should be 'none', 'mixup' or 'cutmix'"),
    ({"interpolation_alpha": 0.5}, "interpolation_alpha needs interpolation: mixup or cutmix"),
    ({"interpolation": "mixup", "interpolation_share": 0}, "interpolation_share: input should be greater than 0"),
    ({"teacher_layers": ["encoder"]}, "teacher_layers needs activation_boundary or attention_transfer above 0"),
    (
        {"interpolation": "mixup", "interpolation_share": 1, "attention_transfer": 0.1},
        "with this interpolation_share a batch .* has none: lower it",
    ),
    (
        {"interpolation": "mixup", "interpolation_share": 0.8, "attention_transfer": 0.1, "batch_size": 4},
        "with this interpolation_share a batch .* has none: lower it",
    ),
    ({"replay_answers": "kept"}, "replay_answers needs replay_size"),
    (
        {"progressive_sizes": [[32, 32], [48, 64]], "image_size": [64, 64]},
        "progressive_sizes ends with 48x64, and image_size is 64x64",
    ),
    (
        {"replay_size": 64, "replay_steps": 1, "final_replay_steps": 9},
        "final_replay_steps needs a schedule that falls",
    ),
    ({"student_loss": {}}, "student_loss needs at least one discrepancy"),
    ({"student_loss": {"mae": 0}}, "student_loss needs at least one discrepancy"),
    ({"student_loss": {"mae": -1}}, "student_loss.mae: input should be greater than or equal to 0"),
    ({"schedule": {"type": "step"}}, "schedule: a step schedule needs every"),
    ({"schedule": {"type": "poly", "gamma": 0.5}}, "a poly schedule does not take gamma"),
    ({"method": "random_noise"}, "method random_noise does not use generator"),
    (
        {"method": "distill_with_data", "generator": ..., "interpolation": "mixup", "activation_boundary": 0.1},
        "does not use activation_boundary, interpolation; remove",
    ),
    ({"method": "supervised", "generator": ...}, "needs dataset.*give either teacher or student"),
    ({"method": "distill_with_data", "generator": ..., "student_steps": 2}, "does not use student_steps"),
    ({"precision": "fp8"}, "precision"),
    ({"student_norm": "freeze"}, "student_norm"),
    ({"replay_size": 64}, "replay_size and replay_steps go together"),
    ({"replay_steps": 2}, "replay_size and replay_steps go together"),
    ({"final_replay_steps": 2}, "final_replay_steps needs replay_size"),
    ({"replay_size": 2, "replay_steps": 2}, "replay_size must be at least batch_size"),
    ({"num_classes": 1}, "num_classes is 1, and a softmax over one class is constant"),
    ({"progressive_sizes": [[32, 32], [64, 64]]}, "progressive_sizes needs a generator of any size"),
    ({"generator": {"type": "layout", "painters": 8}, "accumulate": 16}, "painters is 8, and .* fewer images"),
    ({"attention_transfer": 0.1, "simultaneous": True}, "attention_transfer cannot go with simultaneous"),
    ({"seed": -1}, "seed: input should be greater than or equal to 0"),
]


@pytest.mark.parametrize("changes, message", WRONG, ids=[str(i) for i in range(len(WRONG))])
def test_mistakes_are_named(changes, message):
    with pytest.raises(InputError, match="(?s)" + message):
        parse_config(changed(**changes))


def test_all_mistakes_are_reported_together():
    with pytest.raises(InputError) as error:
        parse_config(changed(iterations=0, batchsize=4, seed=-1))
    assert all(key in str(error.value) for key in ("iterations", "batchsize", "seed", "Did you mean 'batch_size'"))


def test_the_discrepancies_that_take_a_temperature_are_known():
    from dfad_seg.config.schema import TEMPERED
    from dfad_seg.objectives import discrepancy

    assert TEMPERED == set(discrepancy.TEMPERED)


def write(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return path


def test_overrides(tmp_path):
    path = write(tmp_path, yaml.safe_dump(DFAD))
    config = load_config(path, ["schedule.type=poly", "schedule.power=0.5", "image_size=[32, 48]", "seed=3"])
    assert config.schedule.power == 0.5 and config.image_size == (32, 48) and config.seed == 3
    for override, message in (
        ("seed", "not of the form key=value"),
        ("=3", "not of the form"),
        ("seed.x=3", "seed: .*integer"),
        ("method.x=3", "'method' is a value, not a group"),
        ("sede=3", "Did you mean 'seed'"),
        ("seed=[", "not valid YAML"),
    ):
        with pytest.raises(InputError, match=message):
            load_config(path, [override])


@pytest.mark.parametrize(
    "text, message",
    [
        ("- a\n- b\n", "must hold a mapping"),
        ("", "must hold a mapping"),
        ("a: [1", "not valid YAML"),
        ("a: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
        ("a: b: c", "not valid YAML"),
        ("seed: 1\niterations: 2\nseed: 3\n", "not valid YAML: the key 'seed' is there twice .*line 3"),
        ("student: {source: smp, source: timm}", "the key 'source' is there twice"),
    ],
)
def test_broken_files(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        load_config(write(tmp_path, text))


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(InputError, match="cannot read the config .*No such file"):
        load_config(tmp_path / "absent.yaml")
    with pytest.raises(InputError, match="cannot read the config .*directory"):
        load_config(tmp_path)
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(InputError, match="not valid YAML"):
        load_config(tmp_path / "b.yaml")


SEGMENTATION = CONFIGS


@pytest.mark.parametrize("path", SEGMENTATION, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_networks_of_shipped_configs_can_be_built(path):
    from dfad_seg.generators import build_generator
    from dfad_seg.segmentors import build_segmentor

    config = load_config(path)
    if "mmseg" in {section.source for section in (config.teacher, config.student) if section is not None}:
        pytest.importorskip("mmseg", reason="needs MMSegmentation, see make test-mmseg")
    for section in (config.teacher, config.student):
        if section is not None and section.source != "saved":
            options = {k: v for k, v in section.options().items() if k != "encoder_weights"}
            assert build_segmentor(section.source, num_classes=11, **options).num_classes == 11
    if config.generator is not None:
        options = config.generator.options()
        if options.get("class_frequencies") in ("statistics", "moments"):  # read off the teacher by the pipeline
            options["class_frequencies"] = [1] * 11
        build_generator(config.generator.type, num_classes=11, image_size=config.image_size, **options)
