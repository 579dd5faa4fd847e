"""Code on the pages runs as it is printed, at tiny sizes."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from doc_pages import REPOSITORY, code_blocks
from shared import scripted
from torch import nn

from dfad_seg.cli import main
from dfad_seg.segmentors import build_segmentor, save_segmentor

pytestmark = pytest.mark.slow


def fresh(folder, *arguments):
    """Run this Python in a folder, with the package of this repository or of the folder itself; it must end well."""
    path = folder if (folder / "dfad_seg").is_dir() else REPOSITORY
    environment = {"PYTHONPATH": str(path), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(folder)}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_snippets_of_readme_get_started_and_export(tmp_path, tiny_scenes):
    """In order, in one folder: what the first trains, the others load and export."""
    shutil.copytree(tiny_scenes, tmp_path / "runs" / "demo" / "data")
    teacher = build_segmentor("smp", num_classes=11, arch="DeepLabV3Plus", encoder_name="tu-test_resnet")
    (tmp_path / "runs" / "demo" / "teacher").mkdir()
    save_segmentor(tmp_path / "runs" / "demo" / "teacher" / "teacher.pt", teacher)
    demo = yaml.safe_load((REPOSITORY / "configs" / "street_scenes" / "demo.yaml").read_text())
    demo |= {"iterations": 2, "batch_size": 3, "image_size": [32, 48], "progressive_sizes": [], "report": "short"}
    demo |= {"replay": {"size": 8, "steps": 1}, "schedule": {"type": "constant"}}
    (tmp_path / "configs" / "street_scenes").mkdir(parents=True)
    (tmp_path / "configs" / "street_scenes" / "demo.yaml").write_text(yaml.safe_dump(demo))
    (readme,) = code_blocks("README.md", "python")
    assert 0 <= float(fresh(tmp_path, "-c", readme).splitlines()[-1]) <= 1
    for run in ("student", "mine"):
        shutil.copytree(tmp_path / "runs" / "from_python", tmp_path / "runs" / run)
    assert main(["export", str(tmp_path / "runs" / "mine"), "--format", "onnx"]) == 0
    snippets = code_blocks("docs/get_started.md", "python") + code_blocks("docs/export.md", "python")
    assert len(snippets) == 3
    for snippet in snippets:
        fresh(tmp_path, "-c", snippet)


def test_commands_and_configs_of_your_own_model(tmp_path, monkeypatch, capsys):
    """Each config is built with its weights by a dry run; the one for MMSegmentation needs that, and is only read."""
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (code,) = code_blocks("docs/bring_your_own.md", "python")
    (tmp_path / "my_model.py").write_text(code)
    own = {}
    exec(code, own)
    networks = {
        "smp": build_segmentor("smp", num_classes=11, arch="DeepLabV3Plus", encoder_name="resnet18").network,
        "torchvision": lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=21),
        "factory": own["build"](),
    }
    scripted(nn.Conv2d(3, 11, 1), "my_teacher.pt")
    for config in map(yaml.safe_load, code_blocks("docs/bring_your_own.md", "yaml")):
        source = config["teacher"]["source"]
        if source in networks:
            torch.save(networks.pop(source).state_dict(), "my_teacher.pth")
        grey = "in_channels" in config["teacher"]
        if grey:
            options = {name: value for name, value in config["teacher"].items() if name != "checkpoint"}
            torch.save(build_segmentor(num_classes=2, **options).network.state_dict(), "my_teacher.pth")
        if source == "smp" and not grey:
            assert main(["inspect", "my_teacher.pth", "--out", "mine.yaml"]) == 0
            quick = ["--cfg-options", "batch_size=2", "image_size=[64, 64]", "generator.sub_generators=1"]
            assert main(["train", "mine.yaml", "--dry-run", *quick]) == 0
        if source == "transformers":
            from transformers import SegformerConfig, SegformerForSemanticSegmentation

            own = SegformerConfig(num_labels=150, depths=[1] * 4, decoder_hidden_size=32)
            SegformerForSemanticSegmentation(own).save_pretrained("my_segformer")
            normalisation = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
            Path("my_segformer/preprocessor_config.json").write_text(json.dumps(normalisation))
        if source != "mmseg":
            small = {"batch_size": 2, "image_size": [64, 64]}  # a dry run times three iterations
            (tmp_path / "config.yaml").write_text(yaml.safe_dump(config | small))
            assert main(["train", "config.yaml", "--dry-run"]) == 0, capsys.readouterr().err
    assert networks == {}


def test_what_contributing_adds_works(tmp_path):
    """Each block is put into a copy of the package: a new file as it is, a line of a table at its file's end."""
    for folder in ("dfad_seg", "configs"):
        shutil.copytree(REPOSITORY / folder, tmp_path / folder)
    tests = []
    for block in code_blocks("CONTRIBUTING.md", "python"):
        path = tmp_path / re.match(r"# (\S+\.py)\n", block)[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write("\n" + block)
        tests += [path] if path.is_relative_to(tmp_path / "tests") else []
    assert len(tests) == 4
    assert "4 passed" in fresh(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)


def test_the_notebook(capsys):
    cells = json.loads((REPOSITORY / "examples" / "distil_in_a_notebook.ipynb").read_text(encoding="utf-8"))["cells"]
    assert all(cell.get("outputs", []) == [] for cell in cells)
    namespace = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), namespace)
    teacher, student = (float(score) for score in re.findall(r"mIoU ([\d.]+)", capsys.readouterr().out))
    # Better than any network that predicts one class everywhere: road covers half of the scenes.
    assert teacher > 0.15 and student > 0.08
    assert namespace["labels"].shape == (1, 32, 48)


def test_the_digits(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "examples"))
    from digits import main as distil_digits

    found = distil_digits(["--iterations", "40"])
    assert found["teacher"][0] > 0.9
    assert 0.3 < found["random noise"][0] < found["teacher"][0]
