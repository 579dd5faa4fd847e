"""Configs and command lines that are wrong, as tables."""

SECTION = {"source": "factory", "factory": "tiny_networks:network", "mean": [0.5] * 3, "std": [0.5] * 3}
SMP = {"source": "smp", "arch": "Unet", "encoder_name": "resnet18"}


def student(**changes):
    return {"student": {k: v for k, v in (SECTION | changes).items() if v is not ...}}


# (changes to a good config, words of the message), where more than the config has to be read; the rest is in
# tests/config. `...` removes a key.
VALUES = [
    ({"image_size": [15, 17]}, ["multiples of 16"]),
    ({"dataset": {"type": "street_scenes", "root": "nowhere"}}, ["nowhere"]),
    ({"num_classes": 7}, ["num_classes is 7", "11 classes"]),
    ({"evaluation": {"split": "vla"}}, ["vla", "Did you mean 'val'"]),
    (student(factory="no_such_module:network"), ["no_such_module"]),
    (student(factory="tiny_networks:netwrok"), ["netwrok", "Did you mean 'network'"]),
    (student(factory="tiny_networks"), ["package.module:callable"]),
    (student(factory="tiny_networks:nn"), ["not a callable"]),
    (student(kwargs={"wdth": 3}), ["tiny_networks:network failed"]),
    (student(kwargs={"classes": 4}), ["4,|4 classes"]),
    (student(mean=...), ["needs the option mean"]),
    (student(std=[0.5, 0.5, 0.0]), ["student", "std"]),
    (student(mean=[123.7, 116.3, 103.5], std=[58.4, 57.1, 57.4]), ["student", "input_scale"]),
    (student(wobble=1), ["student", "wobble"]),
    (student(checkpoint="absent.pt"), ["absent.pt"]),
    ({"student": SMP | {"encoder_weights": "imagnet"}}, ["student", "imagnet"]),
    ({"student": SMP | {"encoder_depth": 99}}, ["student"]),
    ({"teacher": SMP}, ["teacher", "random"]),
]  # fmt: skip

# (tool, arguments, words of the message). RUN is the work-dir, GOOD a good config, DATA the data, FILE a text file.
COMMANDS = [
    ("train", [], ["CONFIG"]),
    ("train", ["absent.yaml", "--work-dir", "RUN"], ["absent.yaml"]),
    ("train", ["DATA", "--work-dir", "RUN"], ["is a folder"]),
    ("train", ["GOOD", "--work-dir", "RUN", "--seed", "x"], ["--seed"]),
    ("train", ["GOOD", "--work-dir", "RUN", "--device", "gpu"], ["--device"]),
    ("train", ["GOOD", "--work-dir", "RUN", "--wrk"], ["--wrk"]),
    ("train", ["GOOD", "--work-dir", "RUN", "--devices", "0"], ["devices"]),
    ("train", ["GOOD", "--work-dir", "RUN", "--precision", "fp8"], ["precision"]),
    ("train", ["GOOD", "--work-dir", "RUN", "--cfg-options", "seed"], ["--cfg-options", "key=value"]),
    ("train", ["GOOD", "--work-dir", "RUN", "--cfg-options", "=5"], ["--cfg-options"]),
    ("train", ["GOOD", "--work-dir", "RUN", "--cfg-options", "seed=[1"], ["--cfg-options", "YAML"]),
    ("train", ["GOOD", "--work-dir", "RUN", "--cfg-options", "seed=2001-99-99"], ["--cfg-options", "YAML"]),
    ("train", ["GOOD", "--work-dir", "RUN", "--cfg-options", "method.x=5"], ["'method' is a value"]),
    ("train", ["GOOD", "--work-dir", "RUN", "--cfg-options", ".=5"], [": unknown key"]),
    ("train", ["GOOD", "--work-dir", "RUN", "--profile", "-3"], ["--profile"]),
    ("train", ["GOOD", "--work-dir", "RUN", "--profile", "9", "--cfg-options", "iterations=1"], ["--profile"]),
    ("train", ["GOOD", "--work-dir", "FILE"], ["is a file"]),
    ("train", ["GOOD", "--work-dir", "RUN", "--resume"], ["no run to resume"]),
    ("train", ["GOOD", "--work-dir", "RUN", "--resume", "absent.pt"], ["no run to resume"]),
    ("eval", [], ["nothing to score"]),
    ("eval", ["absent.yaml", "x.pt"], ["absent.yaml"]),
    ("eval", ["GOOD", "absent.pt"], ["absent.pt"]),
    ("eval", ["GOOD", "FILE"], ["FILE"]),
    ("eval", ["GOOD", "FILE", "--split", "x"], ["x"]),
    ("eval", ["GOOD", "FILE", "--scales", "0"], ["scales"]),
    ("eval", ["GOOD", "FILE", "--crop", "0", "5"], ["crop_size"]),
    ("eval", ["GOOD", "FILE", "--out", "x.txt"], ["x.txt"]),
    ("eval", ["GOOD", "--predictions", "nowhere"], ["nowhere"]),
    ("eval", ["GOOD", "--predictions", "FILE"], ["FILE"]),
    ("eval", ["--dataset", "street_scenes", "--predictions", "DATA"], ["--dataset-root"]),
    ("eval", ["--dataset", "x", "--dataset-root", "DATA", "--predictions", "DATA"], ["'x'"]),
    ("eval", ["--compare", "DATA"], ["--compare"]),
    ("eval", ["GOOD", "--batch-size", "x"], ["--batch-size"]),
    ("eval", ["GOOD", "--precision", "int8"], ["--precision"]),
    ("prepare", [], ["command"]),
    ("prepare", ["unpack"], ["unpack"]),
    ("prepare", ["check", "--type", "street_scens", "--root", "DATA"], ["Did you mean 'street_scenes'"]),
    ("prepare", ["check", "--type", "street_scenes", "--root", "nowhere"], ["nowhere"]),
    ("prepare", ["check", "--type", "street_scenes", "--root", "DATA", "--sample", "0"], ["--sample"]),
    ("prepare", ["check", "--type", "camvid", "--root", "DATA", "--options", "x"], ["--options"]),
    ("prepare", ["check", "--type", "camvid", "--root", "DATA", "--options", "x=1"], ["x"]),
    ("prepare", ["camvid", "--root", "RUN", "--url", "file:///etc/passwd"], ["http"]),
    ("prepare", ["camvid", "--root", "RUN", "--url", "nonsense"], ["http"]),
    ("prepare", ["voc", "--root", "RUN", "--archive", "absent.tar"], ["absent.tar"]),
    ("prepare", ["voc", "--root", "RUN", "--archive", "FILE"], ["md5"]),
    ("prepare", ["street-scenes", "--root", "RUN", "--size", "0", "5"], ["size"]),
    ("prepare", ["street-scenes", "--root", "FILE"], ["FILE"]),
]
