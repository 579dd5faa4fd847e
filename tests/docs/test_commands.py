"""Commands and configs on the pages: the real parser takes each command, the schema each config and its overrides."""

import configparser
import re
import shlex

import pytest
import yaml
from doc_pages import PAGES, REPOSITORY, code_blocks

from dfad_seg.cli import COMMANDS
from dfad_seg.cli.commands import parser_of
from dfad_seg.config import load_config, parse_config, shipped_configs

ELSEWHERE = {"git", "cd", "tensorboard", "cp", "codespell", "pre-commit", "."}


def commands(script):
    """The simple commands of a shell script, as lists of words."""
    script = re.sub(r"(^|\s)#.*$", "", re.sub(r"\\\n\s*", " ", script), flags=re.MULTILINE)
    return [
        shlex.split(part.replace("<this repository>", "URL")) for part in re.split(r"\n|&&", script) if part.strip()
    ]


SHELL = [
    pytest.param(words, id=f"{page.name}: {shlex.join(words)[:90]}")
    for page in PAGES
    for language in ("sh", "bash")
    for block in code_blocks(page, language)
    for words in commands(block)
]
EXPERIMENTS = [
    pytest.param(yaml.safe_load(block), id=f"{page.name}, block {number}")
    for page in PAGES
    for number, block in enumerate(code_blocks(page, "yaml"))
]
WHOLE = {
    "method": "dfad",
    "teacher": {"source": "saved", "checkpoint": "teacher.pt"},
    "student": {"source": "smp", "arch": "Unet", "encoder_name": "resnet18"},
    "generator": {"type": "layout"},
}


@pytest.mark.parametrize("words", SHELL)
def test_command(words):
    program, *rest = words
    if program == "torchrun":
        program, rest = "python", rest[next(i for i, word in enumerate(rest) if word.endswith(".py")) :]
    if program == "python" and rest[0].startswith("tools/"):
        rest = [{"train_seg": "train", "eval_miou": "eval"}[rest[0][6:-3]], *rest[1:]]
        program = "dfad-seg"
    if program == "dfad-seg":
        if rest != ["--version"]:
            understood(*rest)
    elif program == "make":
        targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE))
        assert {word for word in rest if "=" not in word} <= targets
    elif program == "pip":
        extras = configparser.ConfigParser()
        extras.read(REPOSITORY / "setup.cfg")
        for group in re.findall(r"\.\[([\w,-]+)\]", " ".join(rest)):
            assert set(group.split(",")) <= set(extras["options.extras_require"])
        assert all((REPOSITORY / word).is_file() for word in rest if word.endswith(".txt"))
    elif program in ("python", ".venv/bin/python"):
        assert rest[0].startswith("MMSEG/") or rest[0] == "-m" or (REPOSITORY / rest[0]).is_file()
    else:
        assert program in ELSEWHERE, f"'{program}' is no program that the tests know"


def understood(command, *rest):
    """A subcommand's parser takes the arguments, and a shipped config the overrides."""
    assert command in COMMANDS, f"dfad-seg has no command {command}"
    arguments = parser_of(command).parse_args(list(rest))
    config = getattr(arguments, "config", None)
    if isinstance(config, str) and (config.startswith("configs/") or "/" in config and not config.startswith("runs/")):
        assert config in shipped_configs() or (REPOSITORY / config).is_file(), f"no config {config}"
        load_config(config, list(getattr(arguments, "cfg_options", [])))


@pytest.mark.parametrize("block", EXPERIMENTS)
def test_experiment_or_a_part_of_one_is_valid(block):
    whole = block if "method" in block else WHOLE | ({} if "dataset" in block else {"num_classes": 11}) | block
    assert parse_config(whole).method == whole["method"]


def test_keys_named_in_the_text_are_there():
    reference = (REPOSITORY / "docs" / "configuration.md").read_text(encoding="utf-8")
    known = set(re.findall(r"^\| `(\w+)`", reference, flags=re.MULTILINE)) | {"type", "source"}
    named = {
        (page.name, key)
        for page in PAGES
        for code in re.findall(r"`([a-z_.]+): [^`\n]+`", page.read_text(encoding="utf-8"))
        for key in code.split(".")
    }
    assert {(page, key) for page, key in named if key not in known} == set()
