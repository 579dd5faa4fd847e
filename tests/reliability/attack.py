"""Every command over every kind of file, damaged in every way that the tables say; prints what came of it.

    python tests/reliability/attack.py [--seed 0] [--share 1.0] [--only KIND]

Each attack is a process of its own in a copy of a small world of good files. It is survived when the command ends by
itself with exit code 0, 2 or 3; 2 with one line of `error:`, nothing new on the disk, and no control character printed.
"""

import argparse
import contextlib
import copy
import json
import os
import random
import re
import resource
import select
import shutil
import signal
import socket
import stat
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

SECONDS, MEMORY = 60, 3 * 2**30
"""Of one attack; longer is a hang. Bytes that it may take beyond the good files' commands."""
FORGED = "a\x1b[31m\x07\nerror: forged\r\u202e"
NASTY = [
    *(None, True, -1, 0, 3, 1e308, float("nan"), float("inf"), 2**70, -(2**63), "", "x", FORGED, "y" * 100_000),
    *([], {}, [1, 2, 3], {"a": 1}, ["z"] * 3, "../../outside.txt", "/dev/zero", "\0", "\udcff", [[[[[[]]]]]]),
]  # fmt: skip
STUDENT = "run/student.pt"
# What is attacked: its place in the world, how its content is taken apart, and what reads it.
FILES = {
    "config": ("config.yaml", "yaml", [f"eval config.yaml {STUDENT}", "train config.yaml --dry-run", "train config.yaml --work-dir new"]),
    "config of a run": ("run/config.yaml", "yaml", ["eval run", "report run", "compare run", "export run --format safetensors --split val", "train config.yaml --work-dir run --resume", "eval --compare run teacher"]),
    "network": (STUDENT, "torch", [f"inspect {STUDENT}", "eval run", "export run --format safetensors", "report run"]),
    "bare weights": ("weights.pt", "torch", ["inspect weights.pt --out c.yaml", "train config.yaml --work-dir new", "eval config.yaml weights.pt --role teacher"]),
    "safetensors": ("weights.safetensors", "bytes", ["inspect weights.safetensors", "eval config.yaml weights.safetensors --role teacher"]),
    "checkpoint": ("run/checkpoints/iteration_00000001.pt", "torch", ["train config.yaml --work-dir run --resume", "inspect run/checkpoints/iteration_00000001.pt", "train config.yaml --work-dir run --resume run/checkpoints/iteration_00000001.pt"]),
    "provenance": ("run/provenance.json", "json", ["report run", "compare run", "export run --format safetensors", "train config.yaml --work-dir run --resume"]),
    "summary": ("run/summary.json", "json", ["report run", "compare run --out out", "eval run --split val", "train config.yaml --work-dir run --resume"]),
    "metrics": ("run/metrics.jsonl", "jsonl", ["report run", "compare run", "train config.yaml --work-dir run --resume"]),
    "lock": ("run/run.lock", "bytes", ["train config.yaml --work-dir run --resume", "report run"]),
    "report": ("run/report.html", "bytes", ["report run", "train config.yaml --work-dir run --resume"]),
    "picture of a run": ("run/pictures/generated_00000002.png", "bytes", ["report run"]),
    "image": ("data/val/street_00000.png", "bytes", ["eval run", "prepare check --type camvid --any-count --root data", "train supervised.yaml --work-dir new --cfg-options training_data.split=val"]),
    "mask": ("data/valannot/street_00000.png", "bytes", ["eval run --show-dir out", "prepare check --type camvid --any-count --root data"]),
    "record of a data set": ("data/street_scenes.json", "json", ["prepare street-scenes --root data --size 32 32 --train 1 --val 1 --test 1"]),
    "split list": ("voc/ImageSets/Segmentation/val.txt", "bytes", ["prepare check --type voc --any-count --root voc", "eval --dataset voc --dataset-root voc --split val --predictions pngs"]),
    "annotations": ("coco/val.json", "json", ["prepare check --type coco --root coco --options annotation_file=<split>.json image_dir=<split>", "eval --dataset coco --dataset-root coco --split val --predictions coco.json --cfg-options dataset.annotation_file=<split>.json dataset.image_dir=<split>"]),
    "COCO results": ("coco.json", "json", ["eval --dataset coco --dataset-root coco --split val --predictions coco.json --cfg-options dataset.annotation_file=<split>.json dataset.image_dir=<split>"]),
    "prediction": ("pngs/street_00000.png", "bytes", ["eval config.yaml --predictions pngs --boundary-iou", "eval --compare run pngs"]),
    "list of results": ("results.json", "json", ["compare run --results results.json"]),
    "archive": ("voc.tar", "bytes", ["prepare voc --root new --archive voc.tar"]),
    "MATLAB file": ("mat/nyu_depth_v2_labeled.mat", "bytes", ["prepare nyuv2 --root new --source mat"]),
    "TorchScript": ("program.torchscript", "bytes", ["inspect program.torchscript --trust", "inspect program.torchscript", "eval program.yaml program.torchscript"]),
    "torch.export": ("program.pt2", "bytes", ["inspect program.pt2 --trust", "inspect program.pt2"]),
}  # fmt: skip
# Where results go: a command with OUT, and whether that is a folder.
TARGETS = {
    "--out (eval)": ("eval run --out OUT.json", False),
    "--save-coco": ("eval run --save-coco OUT", False),
    "--save-predictions": ("eval run --save-predictions OUT", True),
    "--show-dir": ("eval run --show-dir OUT", True),
    "--out (export, file)": ("export run --format torchscript --size 32 32 --out OUT", False),
    "--out (export, folder)": ("export run --format smp --out OUT", True),
    "--table": ("export run --format safetensors --out new --table OUT", False),
    "--out (inspect)": ("inspect weights.pt --out OUT", False),
    "--out (compare)": ("compare run --out OUT", True),
    "--results": ("compare run --results OUT", False),
    "--work-dir": ("train config.yaml --work-dir OUT", True),
    "--root": ("prepare street-scenes --root OUT --size 32 32 --train 1 --val 0 --test 0", True),
}
NAMES = {
    "missing": "nowhere/at/all",
    "a name too long": "n" * 300,
    "a path too long": "p/" * 3000 + "x",
    "through a file": "config.yaml/x/y",
    "escape sequences": "\x1b[31m\nerror: forged",
    "no UTF-8": "\udcff\udcfe",
    "a NUL": "a\0b",
    "empty": "",
    "of no user": "~nobody_such/x",
    "in /proc": "/proc/nothing/x",
}


def fill(world):
    """The good files; in a process of its own, as after a backward pass no other may be forked."""
    import numpy as np
    import torch
    import yaml
    from bad_files import GOOD_COCO
    from PIL import Image
    from safetensors.torch import save_file

    from dfad_seg.cli import main
    from dfad_seg.datasets import write_street_scenes
    from dfad_seg.segmentors import build_segmentor

    os.chdir(world)
    write_street_scenes("data", size=(32, 32), counts={"train": 2, "val": 2, "test": 1})
    net = {
        "source": "smp",
        "arch": "Unet",
        "encoder_name": "tu-test_resnet",
        "encoder_depth": 3,
        "decoder_channels": [8, 8, 8],
    }
    teacher = build_segmentor(num_classes=11, **net)
    torch.save(teacher.network.state_dict(), "weights.pt")
    save_file(teacher.network.state_dict(), "weights.safetensors")
    torch.jit.trace(teacher.network.eval(), torch.rand(1, 3, 32, 32)).save("program.torchscript")
    torch.export.save(torch.export.export(teacher.network, (torch.rand(1, 3, 32, 32),)), "program.pt2")
    evaluation = {"split": "val", "batch_size": 2, "num_workers": 0}
    base = {
        "teacher": net | {"checkpoint": "weights.pt"},
        "student": net,
        "dataset": {"type": "street_scenes", "root": "data"},
        "evaluation": evaluation,
        "iterations": 2,
        "batch_size": 2,
        "image_size": [32, 32],
        "save_every": 1,
        "report": "short",
        "loggers": [],
        "device": "cpu",
    }
    Path("config.yaml").write_text(
        yaml.safe_dump(
            {"method": "dfad", "generator": {"type": "layout", "width": 8}, "student_loss": {"mae": 1.0}, **base}
        )
    )
    program = {
        "source": "torchscript",
        "path": "program.torchscript",
        "trust": True,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
    }
    Path("program.yaml").write_text(
        yaml.safe_dump({"method": "supervised", **base, "teacher": program} | {"student": None})
    )
    Path("supervised.yaml").write_text(
        yaml.safe_dump(
            {"method": "supervised", **base, "teacher": None, "training_data": {"split": "train", "num_workers": 0}}
        )
    )
    assert main(["train", "config.yaml", "--work-dir", "run"]) == 0
    assert main(["eval", "run", "--save-predictions", "pngs"]) == 0
    assert main(["compare", "run", "--results", "results.json"]) == 0
    Path("run/run.lock").write_text(json.dumps({"pid": 1, "host": "elsewhere"}))
    voc = Path("voc/VOCdevkit/VOC2012")
    for folder, mode in (("JPEGImages", "RGB"), ("SegmentationClass", "L")):
        (voc / folder).mkdir(parents=True)
        Image.fromarray(np.zeros((32, 32, 3)[: 3 if mode == "RGB" else 2], np.uint8)).save(
            voc / folder / f"a.{'jpg' if mode == 'RGB' else 'png'}"
        )
    for split in ("train", "val"):
        (voc / "ImageSets/Segmentation").mkdir(parents=True, exist_ok=True)
        (voc / f"ImageSets/Segmentation/{split}.txt").write_text("a\n")
    shutil.make_archive("voc", "tar", "voc")
    os.rename("voc", "old")
    os.rename("old/VOCdevkit/VOC2012", "voc")
    shutil.rmtree("old")
    Path("coco/val").mkdir(parents=True)
    Image.new("RGB", (48, 32)).save("coco/val/a.png")
    Path("coco/val.json").write_text(json.dumps(GOOD_COCO))
    Path("coco.json").write_text(
        json.dumps(
            [{"image_id": 1, "category_id": 1, "score": 1.0, "segmentation": {"size": [32, 48], "counts": [32 * 48]}}]
        )
    )
    Path("mat").mkdir()
    for name in ("nyu_depth_v2_labeled.mat", "labels40.mat", "splits.mat"):
        Path("mat", name).write_bytes(b"MATLAB 5.0 MAT-file" + bytes(109) + b"\0\1IM" + bytes(200))


def read(path, form):
    import torch
    import yaml

    if form == "torch":
        return torch.load(path, weights_only=True)
    text = path.read_text()
    return {"yaml": yaml.safe_load, "json": json.loads, "jsonl": lambda t: [*map(json.loads, t.splitlines())]}[form](
        text
    )


def write(path, form, content):
    import torch
    import yaml

    if form == "torch":
        return torch.save(content, path)
    texts = {
        "yaml": yaml.safe_dump,
        "json": json.dumps,
        "jsonl": lambda c: "".join(json.dumps(line) + "\n" for line in c) if isinstance(c, list) else json.dumps(c),
    }
    return path.write_bytes(texts[form](content).encode("utf-8", "surrogatepass"))


def places(node, at=()):
    yield at
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    for key, value in items:
        yield from places(value, (*at, key))


def put(content, at, value):
    """The content with another value at a place; `...` removes it."""
    if not at:
        return value
    content = copy.copy(content) if not isinstance(content, tuple) else list(content)
    if value is ... and len(at) == 1:
        del content[at[0]]
    else:
        content[at[0]] = put(content[at[0]], at[1:], value)
    return content


def of_fields(content, form, rng, count):
    """Each time one field holds something else, or is gone, or has another beside it."""
    every = list(places(content))
    deep = [at for at in every if len(at) <= 3] if form == "torch" else every
    values = [*NASTY, ...]
    if form == "torch":
        import torch

        values = [v for v in values if v != "\udcff"] + [
            torch.zeros(3),
            torch.full((8, 3, 3, 3), float("nan")),
            torch.zeros(0),
            torch.zeros(1).expand(2**33),
            torch.tensor([2**60]),
            torch.zeros(2, dtype=torch.complex64),
        ]
    for _ in range(count):
        at, value = rng.choice(rng.choice([deep, every])), rng.choice(values)
        if rng.random() < 0.1 and isinstance(value, str):
            at = (*at[:-1], value) if False else at
        yield f"{'.'.join(map(str, at))[-60:]} = {str(value)[:30]!r}", put(content, at, value)


def of_bytes(data, rng, count):
    """Flipped bits, cut, longer, something in between, or nothing of it."""
    yield from (("empty", b""), ("zeros", bytes(len(data))), ("text", FORGED.encode()), ("longer", data + b"more"))
    for _ in range(count):
        made, at = bytearray(data), rng.randrange(len(data))
        kind = rng.choice(["bit", "bits", "cut", "insert", "remove", "zeros", "garbage"])
        if kind in ("bit", "bits"):
            for _ in range(1 if kind == "bit" else 64):
                made[rng.randrange(len(made))] ^= 1 << rng.randrange(8)
        else:
            end = {"cut": len(made), "insert": at}.get(kind, at + rng.randrange(1, 200))
            made[at:end] = {
                "insert": rng.randbytes(9),
                "zeros": bytes(end - at),
                "garbage": rng.randbytes(end - at),
            }.get(kind, b"")
        yield f"{kind} at {at}", bytes(made)


def of_kinds(path, outside):
    """What is there is no file at all, or another one."""

    def link(target):
        return lambda: path.symlink_to(target)

    yield "missing", lambda: None
    yield "folder", path.mkdir
    yield "FIFO", lambda: os.mkfifo(path)
    yield "socket", lambda: socket.socket(socket.AF_UNIX).bind(path.name) if len(path.name) < 100 else None
    yield from (
        (f"link to {to}", link(to)) for to in ("/dev/zero", "/dev/null", "nowhere", path.name, "/proc/self/mem")
    )
    yield "device", lambda: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    yield "link to a file outside", link(outside)
    yield "link to a folder outside", link(outside.parent / "folder")


def attacks(world, outside, rng, share):
    """(kind, what is done, how to do it in a copy of the world, argv, whether new files may stay)."""
    few = max(1, round(12 * share))
    for kind, (place, form, commands) in FILES.items():
        path = Path(place)
        data = (world / place).read_bytes()
        for command in commands:
            argv = command.split()
            for name, make in of_kinds(path, outside):
                if rng.random() < share:
                    yield kind, name, lambda make=make, path=path: (path.unlink(missing_ok=True), make()), argv
            for name, content in of_bytes(data, rng, few):
                if rng.random() < max(share, 0.3):
                    yield kind, name, lambda c=content, path=path: path.write_bytes(c), argv
            if form != "bytes":
                for name, content in of_fields(read(world / place, form), form, rng, 2 * few):
                    yield kind, name, lambda c=content, path=path, form=form: write(path, form, c), argv
            if place in argv:
                for name, text in NAMES.items():
                    if rng.random() < share:
                        yield kind, name, lambda: None, [text if part == place else part for part in argv]
    for kind, (command, folder) in TARGETS.items():
        for name, text in NAMES.items():
            if rng.random() < share:
                yield kind, name, lambda: None, [part.replace("OUT", text) for part in command.split()]
        argv = [part.replace("OUT", "target") for part in command.split()]
        path = Path(next(part for part in argv if part.startswith("target")))
        for name, make in of_kinds(path, outside):
            if rng.random() < share and name != "missing":
                yield kind, name, make, argv
        full = (
            (lambda path=path: path.write_text("full"))
            if folder
            else (lambda path=path: (path.mkdir(), (path / "x").write_text("full")))
        )
        yield kind, "something else is there", full, argv


def snapshot(folder):
    """Kind and size of everything in there; a folder has no size."""
    found = {str(path): path.lstat() for path in sorted(folder.rglob("*"))}
    return {path: [of.st_mode, 0 if stat.S_ISDIR(of.st_mode) else of.st_size] for path, of in found.items()}


def child(folder, prepare, argv, output):
    os.chdir(folder / "world")
    with contextlib.suppress(OSError):  # not everybody may make a device: then nothing is there
        prepare()
    (folder / "before.json").write_text(json.dumps(snapshot(folder), ensure_ascii=True))
    handle = os.open(output, os.O_WRONLY | os.O_CREAT)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder / "tmp")
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
    code = 99
    try:
        from dfad_seg.cli import main

        code = main(argv)
    except SystemExit as end:
        code = end.code
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def attack(world, base, prepare, argv):
    """(what went wrong or an empty text, exit code, what was printed)."""
    folder = Path(tempfile.mkdtemp(dir=base))
    shutil.copytree(world, folder / "world")
    (folder / "tmp").mkdir()
    outside = base / "outside.txt"
    number = os.fork()
    if not number:
        child(folder, prepare, argv, folder / "output")
    watch = select.poll()
    watch.register(os.pidfd_open(number), select.POLLIN)
    if not watch.poll(1000 * SECONDS):
        os.kill(number, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    printed = (folder / "output").read_bytes().decode(errors="replace") if (folder / "output").exists() else ""
    before = json.loads((folder / "before.json").read_text())
    after = snapshot(folder)
    for name in ("output", "before.json"):
        after.pop(str(folder / name), None)
    wrong = ""
    errors = [line for line in printed.splitlines() if line.startswith("error: ") or ": error: " in line[:60]]
    new = sorted(set(after) - set(before))
    if code == -signal.SIGKILL:
        wrong = "hangs"
    elif code not in (0, 2, 3):
        wrong = f"ends with {code}" if "Traceback" not in printed else "traceback"
    elif code == 2 and len(errors) != 1:
        wrong = f"{len(errors)} lines of error"
    elif "Traceback" in printed:
        wrong = "traceback"
    elif re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", printed) or "\nerror: forged" in printed:
        wrong = "forged output"
    elif any(".tmp" in name or "/tmp/" in name.removeprefix(str(folder)) for name in new):
        wrong = f"temporaries: {new}"
    elif code == 2 and "--resume" not in argv and (new or any(after.get(k) != v for k, v in before.items())):
        wrong = f"leftovers: {[n.removeprefix(str(folder)) for n in new]}"
    elif outside.read_text() != "outside" or list((base / "folder").iterdir()):
        wrong = "wrote outside"
    elif max(map(len, printed.splitlines()), default=0) > 3000:
        wrong = "a very long line"
    outside.write_text("outside")
    shutil.rmtree(folder, ignore_errors=True)
    return wrong, code, printed


def run(seed, share, only=None, say=print):
    """Try everything; returns the rows of the table and the failures."""
    base = Path(tempfile.mkdtemp(prefix="attack-"))
    world = base / "world"
    world.mkdir()
    (base / "folder").mkdir()
    (base / "outside.txt").write_text("outside")
    number = os.fork()
    if not number:
        try:
            os.dup2(os.open(base / "made", os.O_WRONLY | os.O_CREAT), 1)
            fill(world)
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    assert os.waitpid(number, 0)[1] == 0, "the world could not be made"
    rng, counts, failures, began = random.Random(seed), {}, [], time.monotonic()
    for kind, name, prepare, argv in attacks(world, base / "outside.txt", rng, share):
        if only and kind != only:
            continue
        wrong, code, printed = attack(world, base, prepare, argv)
        counts.setdefault(kind, Counter())[wrong or code] += 1
        if sum(map(Counter.total, counts.values())) % 50 == 0:
            say(f"{kind}: {sum(map(Counter.total, counts.values()))} attacks, {time.monotonic() - began:.0f} s", flush=True)
        if wrong:
            failures.append((kind, name, argv, wrong, printed))
            say(f"FAILED {kind}: {name}: {' '.join(argv)[:200]!r}: {wrong[:300]}\n{printed[-1500:]}\n", flush=True)
    shutil.rmtree(base, ignore_errors=True)
    say(f"{sum(map(Counter.total, counts.values()))} attacks in {time.monotonic() - began:.0f} s, seed {seed}")
    return counts, failures


def table(counts):
    lines = [
        "| attacked | attacks | refused in one line | done all the same | not survived |",
        "|---|---:|---:|---:|---:|",
    ]
    for kind, found in counts.items():
        bad = found.total() - found[0] - found[2] - found[3]
        lines.append(f"| {kind} | {found.total()} | {found[2]} | {found[0] + found[3]} | {bad} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    from server import warm

    warm()
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--only")
    chosen = parser.parse_args()
    counts, failures = run(chosen.seed, chosen.share, chosen.only)
    print(table(counts))
    sys.exit(bool(failures))
