"""Every command over every kind of file, damaged in every way that the tables say; prints what came of it.

    python tests/reliability/attack.py [--seed 0] [--seconds 3600] [--only KIND]

Each attack is a process of its own in a copy of a small world of good files. It is survived when the command ends by
itself with exit code 0, 2 or 3: with 2, one line of `error:` and nothing new or changed on the disk; and always without
temporary files, control characters in what it prints, and anything written outside.
"""

import argparse
import contextlib
import json
import os
import random
import re
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

from attack_tables import FILES, FORGED, GOOD_COCO, NAMES, NASTY, SHORT, TARGETS
from damage import places, put
from server import end_as_command, limit

SECONDS, MEMORY = 300, 3 * 2**30
"""Of one attack: longer is a hang. Bytes that it may take beyond what the warm process has."""


def fill(world):
    """The good files; in a process of its own, as after a backward pass no other may be forked."""
    import torch
    import yaml
    from PIL import Image
    from safetensors.torch import save_file

    from dfad_seg.cli import main
    from dfad_seg.datasets import write_street_scenes
    from dfad_seg.segmentors import build_segmentor

    os.chdir(world)
    write_street_scenes("data", size=(32, 32), counts={"train": 2, "val": 2, "test": 1})
    net = {"source": "smp", "arch": "Unet", "encoder_name": "tu-test_resnet", "encoder_depth": 3}
    net |= {"decoder_channels": [8, 8, 8]}
    teacher = build_segmentor(num_classes=11, **net).network.eval()
    torch.save(teacher.state_dict(), "weights.pt")
    save_file(teacher.state_dict(), "w.safetensors")
    torch.jit.trace(teacher, torch.rand(1, 3, 32, 32)).save("a.torchscript")
    torch.export.save(torch.export.export(teacher, (torch.rand(1, 3, 32, 32),)), "a.pt2")
    base = {"dataset": {"type": "street_scenes", "root": "data"}, "iterations": 2, "batch_size": 2, "save_every": 1}
    base |= {"image_size": [32, 32], "report": "short", "tensorboard": False, "device": "cpu"}
    base |= {"evaluation": {"split": "val", "batch_size": 2, "num_workers": 0}}
    program = {"source": "torchscript", "path": "a.torchscript", "trust": True, "mean": [0.5] * 3, "std": [0.5] * 3}
    generator = {"generator": {"type": "layout", "width": 8}, "student_loss": {"mae": 1.0}}
    for name, values in {
        "config": {"method": "dfad", "student": net, "teacher": net | {"checkpoint": "weights.pt"}, **generator},
        "program": {"method": "supervised", "teacher": program},
        "supervised": {"method": "supervised", "student": net, "training_data": {"split": "train", "num_workers": 0}},
    }.items():
        Path(f"{name}.yaml").write_text(yaml.safe_dump(base | values))
    assert main(["train", "config.yaml", "--work-dir", "run"]) == 0
    assert main(["eval", "run", "--save-predictions", "pngs"]) == 0
    assert main(["compare", "run", "--results", "results.json"]) == 0
    Path("run/run.lock").write_text(json.dumps({"pid": 1, "host": "elsewhere"}))
    for folder, name in (("JPEGImages", "a.jpg"), ("SegmentationClass", "a.png")):
        Path("voc", folder).mkdir(parents=True)
        Image.new("RGB" if name == "a.jpg" else "L", (32, 32)).save(Path("voc", folder, name))
    Path("voc/ImageSets/Segmentation").mkdir(parents=True)
    for split in ("train", "val"):
        Path(f"voc/ImageSets/Segmentation/{split}.txt").write_text("a\n")
    shutil.make_archive("voc", "tar", ".", "voc")
    Path("coco/val").mkdir(parents=True)
    Image.new("RGB", (48, 32)).save("coco/val/a.png")
    Path("coco/val.json").write_text(json.dumps(GOOD_COCO))
    result = {"image_id": 1, "category_id": 1, "score": 1.0, "segmentation": {"size": [32, 48], "counts": [32 * 48]}}
    Path("coco.json").write_text(json.dumps([result]))
    scans()


def scans():
    import numpy as np
    import onnx
    import pydicom
    from PIL import Image

    Path("scans").mkdir()
    samples = np.arange(64, dtype=np.uint16).reshape(8, 8)
    Image.new("L", (8, 8)).save("scans/a.png")
    Image.fromarray(samples).save("scans/a.tif")
    np.save("scans/a.npy", samples)
    file = pydicom.Dataset()
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    file.SOPClassUID, file.SOPInstanceUID = pydicom.uid.CTImageStorage, "1.2.3"
    file.set_pixel_data(samples, "MONOCHROME2", 16)
    file.save_as("scans/a.dcm", enforce_file_format=True)
    value = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, [1, 3, 8, 8])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["images"], ["logits"])], "g", [value], [value])
    onnx.save(onnx.helper.make_model(graph), "a.onnx")


def read(path, form):
    import torch
    import yaml

    if form == "torch":
        return torch.load(path, weights_only=True)
    if form == "yaml":
        return yaml.safe_load(path.read_text())
    return json.loads(path.read_text()) if form == "json" else [*map(json.loads, path.read_text().splitlines())]


def write(path, form, content):
    import torch
    import yaml

    if form == "torch":
        torch.save(content, path)
        return
    lines = content if form == "jsonl" and isinstance(content, list) else [content]
    texts = [yaml.safe_dump(line) if form == "yaml" else json.dumps(line) for line in lines]
    path.write_bytes("\n".join(texts).encode("utf-8", "surrogatepass"))


def of_fields(content, form, rng, count):
    """One field holds something else, or is gone, or one more is beside it."""
    values, every = list(NASTY), list(places(content))
    if form == "torch":
        import torch

        values += [torch.zeros(3), torch.zeros(0), torch.zeros(1).expand(2**33), torch.tensor([2**60])]
        values += [torch.full((8, 3, 3, 3), float("nan")), torch.zeros(2, dtype=torch.complex64)]
    shallow = [at for at in every if len(at) <= 3]
    for _ in range(count):
        at, value = rng.choice(rng.choice([shallow, every])), rng.choice(values)
        yield f"{'.'.join(map(str, at))[-60:]} = {str(value)[:30]!r}", put(content, at, value)
    if isinstance(content, dict):
        yield "a field more", content | {FORGED: FORGED}


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
            more = {"insert": rng.randbytes(9), "zeros": bytes(end - at), "garbage": rng.randbytes(end - at)}
            made[at:end] = more.get(kind, b"")
        yield f"{kind} at {at}", bytes(made)


def of_kinds(path, outside):
    """What is there is no file at all, or another one."""
    yield "missing", lambda: None
    yield "folder", lambda: (path.mkdir(), (path / "x").write_text("full"))
    yield "file", lambda: path.write_text("full")
    yield "FIFO", lambda: os.mkfifo(path)
    yield "socket", lambda: socket.socket(socket.AF_UNIX).bind(str(path))
    yield "device", lambda: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    for to in ("/dev/zero", "/dev/null", "nowhere", path.name, "/proc/self/mem", outside, outside.parent / "folder"):
        yield f"link to {to}", lambda to=to: path.symlink_to(to)


def vanishing(number, do):
    """What makes the file or folder that is opened next, after so many others, into something else."""

    def watch(event, arguments):
        nonlocal number
        if event not in ("open", "os.scandir", "os.listdir") or not isinstance(arguments[0], (str, os.PathLike)):
            return
        path = Path(os.path.abspath(arguments[0]))
        if path.is_relative_to(Path.cwd()) and path != Path.cwd() and ".tmp" not in path.name:
            number -= 1
            if number == 0:
                whole = Path.cwd() / path.relative_to(Path.cwd()).parts[0]
                removed(whole if do == "all" else path)
                if do in ("folder", "text", "link"):
                    {"folder": path.mkdir, "text": path.touch, "link": lambda: path.symlink_to("nowhere")}[do]()

    return lambda: sys.addaudithook(watch)


def attacks(world, outside, rng):
    """(kind, what is done, how to do it in a copy of the world, argv)."""
    for kind, (place, form, commands) in FILES.items():
        path = Path(place)
        for command in commands.split("; "):
            argv = re.sub("[A-Z]{4,}", lambda word: SHORT.get(word[0], word[0]), command)
            argv = argv.split()
            for number in range(1, 25):
                do = rng.choice(["missing", "all", "folder", "text", "link"])
                yield "vanishing", f"{do} at {number}", lambda n=number, do=do: vanishing(n, do), argv
            for name, make in of_kinds(path, outside):
                yield kind, name, lambda make=make, path=path: (removed(path), make()), argv
            if form == "folder":
                continue
            for name, content in of_bytes((world / place).read_bytes(), rng, 12):
                yield kind, name, lambda c=content, path=path: path.write_bytes(c), argv
            if form != "bytes":
                for name, content in of_fields(read(world / place, form), form, rng, 24):
                    yield kind, name, lambda c=content, path=path, form=form: write(path, form, c), argv
            if place in argv:
                for name, text in NAMES.items():
                    yield kind, name, lambda: None, [text if part == place else part for part in argv]
    for kind, command in TARGETS.items():
        argv = " ".join(SHORT.get(part, part) for part in command.split()).split()
        for name, text in NAMES.items():
            yield kind, name, lambda: None, [part.replace("OUT", text) for part in argv]
        argv = [part.replace("OUT", "target") for part in argv]
        path = Path(next(part for part in argv if part.startswith("target")))
        for name, make in of_kinds(path, outside):
            yield kind, name, make, argv


def removed(path):
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def snapshot(folder):
    """Kind and size of everything in there; a folder has no size."""
    found = {str(path): path.lstat() for path in sorted(folder.rglob("*"))}
    return {path: [of.st_mode, 0 if stat.S_ISDIR(of.st_mode) else of.st_size] for path, of in found.items()}


def child(folder, prepare, argv):
    os.chdir(folder / "world")
    then = None
    with contextlib.suppress(OSError, ValueError):  # not everybody may make a device: then nothing is there
        then = prepare()
    (folder / "before.json").write_text(json.dumps(snapshot(folder / "world")))
    handle = os.open(folder / "output", os.O_WRONLY | os.O_CREAT)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder / "tmp")
    limit("RLIMIT_AS", MEMORY)
    end_as_command(argv, then if callable(then) else lambda: None)


def attack(world, base, prepare, argv, kind=""):
    """(what went wrong, or an empty text; exit code; what was printed)."""
    folder = Path(tempfile.mkdtemp(dir=base))
    shutil.copytree(world, folder / "world")
    (folder / "tmp").mkdir()
    (base / "outside.txt").write_text("outside")
    number = os.fork()
    if not number:
        child(folder, prepare, argv)
    watch, process = select.poll(), os.pidfd_open(number)
    watch.register(process, select.POLLIN)
    hangs = not watch.poll(1000 * SECONDS)
    if hangs:
        os.kill(number, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    os.close(process)
    printed = (folder / "output").read_bytes().decode(errors="replace")
    before, after = json.loads((folder / "before.json").read_text()), snapshot(folder / "world")
    outside = list((base / "folder").iterdir())
    shutil.rmtree(base / "folder")
    (base / "folder").mkdir()
    named = os.path.realpath(folder / "world" / "target") == str(base / "folder")  # their own link
    errors = [line for line in printed.splitlines() if line.startswith("error: ") or ": error: " in line[:60]]
    new = [name.removeprefix(str(folder)) for name in sorted(set(after) - set(before))]
    changed = [name.removeprefix(str(folder)) for name, was in before.items() if after.get(name) != was]
    left = [name for name in new if ".tmp" in name] + list((folder / "tmp").iterdir())
    wrong = {
        "hangs": hangs,
        f"ends with {code}": code not in (0, 2, 3),
        "traceback": "Traceback" in printed,
        f"{len(errors)} lines of error": code == 2 and len(errors) != 1,
        "forged output": re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", printed) or "\nerror: forged" in printed,
        "a very long line": max(map(len, printed.splitlines()), default=0) > 3000,
        f"temporaries {left}": left,
        f"leftovers {new} {changed}": code == 2 and "--resume" not in argv and kind != "vanishing" and (new or changed),
        "wrote outside": (base / "outside.txt").read_text() != "outside" or (outside and not named),
    }
    shutil.rmtree(folder, ignore_errors=True)
    return ", ".join(what for what, found in wrong.items() if found), code, printed


def run(seed=0, seconds=3600.0, only=None):
    """Try all in a random order, or what the time allows; counts exit codes, None for what is not survived."""
    base = Path(tempfile.mkdtemp(prefix="attack-"))
    world, rng, began = base / "world", random.Random(seed), time.monotonic()
    world.mkdir()
    (base / "folder").mkdir()
    number = os.fork()
    if not number:
        os.dup2(os.open(base / "made", os.O_WRONLY | os.O_CREAT), 1)
        fill(world)
        os._exit(0)
    assert os.waitpid(number, 0)[1] == 0, "the world could not be made"
    found = Counter()
    tried = [attack for attack in attacks(world, base / "outside.txt", rng) if only in (None, attack[0])]
    rng.shuffle(tried)
    for kind, name, prepare, argv in tried:
        if time.monotonic() - began > seconds:
            break
        wrong, code, printed = attack(world, base, prepare, argv, kind)
        found[None if wrong else code] += 1
        if wrong:
            print(
                f"\nNOT SURVIVED {kind}: {name}: {' '.join(argv)[:200]!r}: {wrong[:300]}\n{printed[-1500:]}", flush=True
            )
    print(f"{found.total()} of {len(tried)} attacks, {time.monotonic() - began:.0f} s; exit codes {dict(found)}")
    shutil.rmtree(base, ignore_errors=True)
    return found


if __name__ == "__main__":
    from server import warm

    warm()
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--only")
    sys.exit(bool(run(**vars(parser.parse_args()))[None]))
