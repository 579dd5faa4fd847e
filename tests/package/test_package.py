"""The command dfad-seg, configs by name, and the wheel outside the repository."""

import os
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from doc_pages import REPOSITORY
from shared import python

from dfad_seg.cli import COMMANDS, main
from dfad_seg.common.errors import InputError
from dfad_seg.config import find_config, load_config, shipped_configs


def test_configs_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = sorted((REPOSITORY / "configs").rglob("*.yaml"))
    assert list(shipped_configs().values()) == files and len(files) > 10
    expected = (REPOSITORY / "configs" / "camvid" / "dfad_cpu.yaml").read_text()
    for name in ("camvid/dfad_cpu", "camvid/dfad_cpu.yaml", "configs/camvid/dfad_cpu.yaml"):
        assert find_config(name).read_text() == expected
    assert load_config("camvid/dfad_cpu", ["seed=5"]).seed == 5
    # A file of one's own comes first.
    (tmp_path / "camvid").mkdir()
    (tmp_path / "camvid" / "dfad_cpu").write_text("mine")
    assert find_config("camvid/dfad_cpu").read_text() == "mine"
    with pytest.raises(InputError, match="Did you mean 'camvid/dfad_cpu'"):
        find_config("camvid/dfad_cup")
    with pytest.raises(InputError, match="cannot read nowhere.yaml"):
        load_config("nowhere.yaml")


def test_the_command_names_its_tools(capsys):
    assert main(["--help"]) == 0 and main([]) == 0
    printed = capsys.readouterr().out
    for command in COMMANDS:
        assert f"\n  {command} " in printed
    assert main(["trian"]) == 2
    assert "Did you mean 'train'" in capsys.readouterr().err


HELP = """
import sys
from dfad_seg.cli import COMMANDS, main
for command in COMMANDS:
    try: main([command, "--help"])
    except SystemExit as end: assert end.code == 0
    print("=" * 9)
assert "torch" not in sys.modules
"""


def test_a_help_page_fits_a_screen_and_does_not_wait_for_torch():
    for command, page in zip(COMMANDS, python("-c", HELP).split("=" * 9 + "\n"), strict=False):
        assert page.startswith(f"usage: dfad-seg {command} [-h]") and len(page.splitlines()) <= 75


@pytest.mark.parametrize("tool, arguments", [("train_seg", ["nowhere.yaml"]), ("eval_miou", ["nowhere.yaml", "x.pt"])])
def test_the_two_doors(tool, arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for words, code in (["--help"], 0), (arguments, 2):
        monkeypatch.setattr(sys, "argv", [tool, *words])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(REPOSITORY / "tools" / f"{tool}.py"), run_name="__main__")
        assert ended.value.code == code
    shown = capsys.readouterr()
    assert shown.out.startswith(f"usage: {tool}.py [-h]") and "cannot read nowhere.yaml" in shown.err


@pytest.mark.slow
def test_the_wheel_works_outside_the_repository(tmp_path, tiny_scenes):
    """Built, installed into a folder of its own, and run in an empty one."""
    pytest.importorskip("setuptools")

    def run(*command, **options):
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=280, **options)
        assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
        return done.stdout

    # From a copy: a build leaves files in its source.
    source = tmp_path / "source"
    for name in ("dfad_seg", "configs"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in filter(Path.is_file, REPOSITORY.iterdir()):
        shutil.copy(file, source)
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "-q", "--no-deps")
    run(*pip, "--no-build-isolation", "-w", tmp_path, source, env=environment)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "dfad_seg/configs/camvid/dfad_cpu.yaml" in names
    assert not any(name.startswith(("tests/", "docs/", "tools/", "configs/")) for name in names)

    site, empty = tmp_path / "site", tmp_path / "empty"
    install = (sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "install", "--no-deps", "--no-index")
    run(*install, "--target", site, wheel, env=environment)
    empty.mkdir()
    command, outside = (sys.executable, site / "bin" / "dfad-seg"), environment | {"PYTHONPATH": str(site)}
    assert str(site / "dfad_seg") in run(*command, "--version", cwd=empty, env=outside)
    options = ("image_size=[32,48]", "batch_size=2", f"dataset.root={tiny_scenes}", "training_data.num_workers=0")
    train = ("train", "street_scenes/teacher", "--work-dir", "teacher", "--device", "cpu", "--cfg-options", *options)
    run(*command, *train, "iterations=2", "report=short", "evaluation.num_workers=0", cwd=empty, env=outside)
    assert "mIoU" in run(*command, "eval", "teacher", "--split", "test", cwd=empty, env=outside)


def test_a_worker_that_does_not_listen_keeps_no_command_from_ending():
    code = """
import multiprocessing, signal, sys, time
from dfad_seg.cli import COMMANDS, main

def work():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(300)

def run():
    multiprocessing.get_context("fork").Process(target=work, daemon=True).start()
    time.sleep(0.5)
    return 0

COMMANDS["configs"] = COMMANDS["configs"]._replace(target="__main__:run")
sys.exit(main(["configs"]))
"""
    python("-c", code)
