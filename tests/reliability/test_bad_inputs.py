"""Bad input of every kind: exit code 2, a readable message that says what and where, no traceback, nothing written."""

import hashlib
from pathlib import Path

import bad_configs
import bad_files
import pytest
import yaml
from harness import tiny_config

from dfad_seg.cli import main

REPOSITORY = Path(__file__).resolve().parents[2]


def call(tool, arguments):
    """A tool's exit code, in this process."""
    try:
        return main([tool, *map(str, arguments)])
    except SystemExit as end:  # argparse's way
        return end.code


def content(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys, place, tool, arguments, says):
    before = content(place)
    code = call(tool, arguments)
    printed = capsys.readouterr().err
    assert code == 2, (code, printed)
    assert "Traceback" not in printed
    errors = [line for line in printed.splitlines() if line.startswith("error: ") or ": error: " in line]
    assert len(errors) == 1 and 20 < len(errors[0]) < 700, printed
    missing = [part for part in says if not any(word in printed for word in part.split("|"))]
    assert not missing, (missing, printed)
    assert content(place) == before, "something was written"


def write_config(place, data, changes):
    path = tiny_config(place, data)
    values = yaml.safe_load(path.read_text()) | changes
    path.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not ...}))
    return path


@pytest.mark.parametrize("number", range(len(bad_configs.VALUES)))
def test_config_values(capsys, place, tiny_scenes, number):
    changes, says = bad_configs.VALUES[number]
    config = write_config(place, tiny_scenes, changes)
    refused(capsys, place, "train", [config, "--work-dir", place / "run"], says)


@pytest.mark.parametrize("number", range(len(bad_configs.COMMANDS)))
def test_command_lines(capsys, place, tiny_scenes, number):
    tool, arguments, says = bad_configs.COMMANDS[number]
    (place / "file.txt").write_text("a text")
    names = {
        "RUN": place / "run",
        "GOOD": tiny_config(place, tiny_scenes),
        "DATA": tiny_scenes,
        "FILE": place / "file.txt",
    }
    says = ["file.txt" if part == "FILE" else part for part in says]
    refused(capsys, place, tool, [names.get(argument, argument) for argument in arguments], says)


@pytest.mark.parametrize("case", bad_files.CHECKPOINTS)
def test_checkpoints(capsys, place, tiny_scenes, case):
    make, says = bad_files.CHECKPOINTS[case]
    config = tiny_config(place, tiny_scenes)
    (place / "teacher_weights.pt").write_bytes(make())
    arguments = [config, "--work-dir", place / "run"]
    refused(capsys, place, "train", arguments, ["teacher", "teacher_weights.pt", *says])
