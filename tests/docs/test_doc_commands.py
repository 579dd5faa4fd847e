"""Each command on each page: its tool is there and takes its options, its config is there and takes its overrides.

Nothing is run: a tool's own parser is given the arguments and is stopped when it has understood them.
"""

import argparse
import configparser
import importlib.util
import re
import shlex
import sys

import pytest
from dfad_seg.main import TOOLS
from doc_pages import PAGES, REPOSITORY, code_blocks, name

from dfad_seg.config import load_config, parse_config

PROGRAMS = {"git", "cd", "make", "pip", "tensorboard", "docker", "mlflow", "apt-get", "conda", "wandb", "playwright"}


def commands(script):
    """The simple commands of a shell script, as argument lists, with loops over words and variables unrolled."""
    script = re.sub(r"\\\n\s*", " ", script)
    variables, found = {}, []
    lines = [re.sub(r"(^|\s)#(\s.*)?$", "", line) for line in script.splitlines()]
    lines = [line for line in lines if line.strip()]
    loops = []
    for line in lines:
        if match := re.match(r"\s*for (\w+) in (.*?); do\s*(.*)$", line):
            loops.append((match[1], match[2].split()))
            line = match[3]
        if line.strip() in ("", "done"):
            loops = loops[:-1] if line.strip() == "done" else loops
            continue
        values = [dict(variables)]
        for variable, words in loops:
            values = [known | {variable: word} for known in values for word in words]
        for known in values:
            filled = re.sub(r"\$\{?(\w+)\}?", lambda m, known=known: known.get(m[1], m[0]), line)
            for part in re.split(r"\s*(?:&&|;|\|\|?)\s*(?=(?:[^']*'[^']*')*[^']*$)", filled):
                words = shlex.split(part.replace("<this repository>", "URL"))
                if words and (match := re.fullmatch(r"(\w+)=(\S*)", words[0])):
                    variables[match[1]] = match[2]
                    words = words[1:]
                if words and words != ["done"]:
                    found.append(words)
    return found


COMMANDS = [
    pytest.param(words, id=f"{name(page)}: {shlex.join(words)[:90]}")
    for page in PAGES
    for block in code_blocks(page.read_text(encoding="utf-8"), "sh")
    for words in commands(block)
]


class Understood(Exception):
    def __init__(self, arguments):
        super().__init__(arguments)
        self.arguments = arguments


def parsed(script, arguments, monkeypatch):
    """What the script's parser makes of the arguments; SystemExit if it refuses them."""
    monkeypatch.syspath_prepend(str(script.parent))
    spec = importlib.util.spec_from_file_location(f"documented_{script.stem}", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    original = argparse.ArgumentParser.parse_args

    def parse_args(self, args=None, namespace=None):
        raise Understood(original(self, args, namespace))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    with pytest.raises(Understood) as understood:
        monkeypatch.setattr(sys, "argv", [str(script), *arguments])
        module.main()
    return understood.value.arguments


def test_there_are_commands():
    assert len(COMMANDS) > 40


@pytest.mark.parametrize("words", COMMANDS)
def test_documented_command(words, monkeypatch):
    program, *arguments = words
    if program == "python" and arguments[0].endswith(".py"):
        script = REPOSITORY / arguments[0]
        assert script.is_file(), f"{arguments[0]} does not exist"
        understood = parsed(script, arguments[1:], monkeypatch)
        check_config(understood)
    elif program == "make":
        targets = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE))
        assert {word for word in arguments if "=" not in word} <= targets
    elif program == "pip":
        check_extras(" ".join(arguments))
    elif program == "dfad-seg":
        if arguments != ["--version"]:
            parsed(REPOSITORY / "tools" / f"{TOOLS[arguments[0]]}.py", arguments[1:], monkeypatch)
    else:
        known = PROGRAMS | {"torchrun", ".venv/bin/python", "python"}
        assert program in known, f"'{program}' is no program that the tests know"


def check_config(arguments):
    """A config of the repository takes the overrides on the command line."""
    path = getattr(arguments, "config", None)
    if not isinstance(path, str) or not path.startswith("configs/"):
        return
    assert (REPOSITORY / path).is_file(), f"{path} does not exist"
    load_config(REPOSITORY / path, list(getattr(arguments, "cfg_options", None) or []))


def check_extras(text):
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    known = set(setup["options.extras_require"])
    for group in re.findall(r"(?:dfad-seg|\.)\[([\w,-]+)\]", text):
        assert set(group.split(",")) <= known


def test_extras_named_anywhere_exist():
    for page in PAGES:
        check_extras(page.read_text(encoding="utf-8"))


EXPERIMENTS = [
    pytest.param(block, id=f"{name(page)}, block {number}")
    for page in PAGES
    for number, block in enumerate(code_blocks(page.read_text(encoding="utf-8"), "yaml"))
    if re.search(r"^method:", block, flags=re.MULTILINE)
]


@pytest.mark.parametrize("block", EXPERIMENTS)
def test_documented_experiment_is_a_valid_config(block):
    import yaml

    assert parse_config(yaml.safe_load(block)).method


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("a b \\\n  c  # d", [["a", "b", "c"]]),
        ("for x in 1 2; do\n  run $x.yaml\ndone", [["run", "1.yaml"], ["run", "2.yaml"]]),
        ("D=data\nrun $D/x && go 'a; b'", [["run", "data/x"], ["go", "a; b"]]),
    ],
)
def test_commands_are_read_as_a_shell_does(script, expected):
    assert commands(script) == expected
