"""Files from strangers: no code of theirs runs, and a small one cannot fill the memory or leave its folder."""

import pickle

import pytest
import torch
from damage import Call
from harness import tiny_config

from dfad_seg.common.errors import InputError
from dfad_seg.common.images import read_photo
from dfad_seg.common.tensors import digest, read_tensors
from dfad_seg.config import load_config
from dfad_seg.recipes.sources import open_source
from dfad_seg.runs import read_checkpoint
from dfad_seg.runs.checkpoints import FORMAT as CHECKPOINT_FORMAT
from dfad_seg.runs.checkpoints import VERSION as CHECKPOINT_VERSION
from dfad_seg.segmentors import load_segmentor

CHECKPOINT = {"format": CHECKPOINT_FORMAT, "version": CHECKPOINT_VERSION, "iteration": 3, "experiment": "x"}
SPEC = {"format": "dfad_seg/segmentor", "version": 1, "classes": None, "palette": None, "extra": {}}
SPEC["sha256"] = digest({})


@pytest.mark.parametrize("read", [read_checkpoint, read_tensors, load_segmentor])
@pytest.mark.parametrize("form", ["bare pickle", "torch file", "resumable checkpoint", "its memory", "network file"])
def test_a_pickle_with_code_is_refused(tmp_path, read, form):
    attack, path = Call(open, str(tmp_path / "owned"), "w"), tmp_path / "file.pt"
    contents = {
        "torch file": {"weight": torch.zeros(1), "more": attack},
        "resumable checkpoint": CHECKPOINT | {"networks": attack},
        "its memory": CHECKPOINT | {"networks": {}, "memory": {"16x16": {"images": attack}}},
        "network file": SPEC | {"state_dict": {}, "spec": attack},
    }
    if form == "bare pickle":
        path.write_bytes(pickle.dumps(attack))
    else:
        torch.save(contents[form], path)
    with pytest.raises(InputError, match="file.pt"):
        read(path)
    assert not (tmp_path / "owned").exists()


def test_a_file_that_names_a_factory_needs_trust(tmp_path):
    path = tmp_path / "student.pt"
    spec = {"source": "factory", "num_classes": 2, "factory": "os:mkdir", "kwargs": {"path": str(tmp_path / "owned")}}
    torch.save(SPEC | {"state_dict": {}, "spec": spec}, path)
    with pytest.raises(InputError, match="runs code that the file names.*--trust"):
        load_segmentor(path)
    assert not (tmp_path / "owned").exists()


def test_scoring_the_run_of_a_stranger_runs_nothing_of_it(tmp_path, tiny_scenes):
    """Its config and its network file both name a factory; the tools that read a run take neither."""
    factory = {"source": "factory", "factory": "os:mkdir", "kwargs": {"path": str(tmp_path / "owned")}}
    config = tiny_config(tmp_path, tiny_scenes, "config.yaml", student=factory, teacher=factory)
    spec = factory | {"num_classes": 11}
    torch.save(SPEC | {"state_dict": {}, "spec": spec}, tmp_path / "student.pt")
    with pytest.raises(InputError, match="--trust"):
        open_source(load_config(config), tmp_path)
    assert not (tmp_path / "owned").exists()


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 10)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)
MERGED = BOMB.replace("[x, x, x, x, x, x, x, x, x, x]", "{x: 1}").replace(" [*", " {<<: [*").replace("]\n", "]}\n")


@pytest.mark.parametrize(
    "text, says",
    [
        (BOMB, "more than 100000 values"),
        (MERGED, "more than 100000 values"),
        ("method: &a [*a]", "repeat without end"),
        ("method: !!python/object/apply:os.mkdir [owned]", "not valid YAML"),
        ("method: !!python/name:os.system", "not valid YAML"),
        ("method: " + "[" * 2000, "not valid YAML"),
        ("method: " + "9" * 5000, "not valid YAML"),
        ("method: 2001-99-99", "not valid YAML"),
        ("# " + "x" * 2**21, "at most 1048576"),
        ("method: \x00", "not valid YAML"),
        ("method: dfad\nmethod: dfad", "the key 'method' is there twice"),
        ("- method", "must hold a mapping"),
    ],
    ids=["laughs", "merged", "itself", "apply", "name", "deep", "digits", "date", "long", "null", "twice", "list"],
)
def test_yaml_is_plain_and_small(tmp_path, monkeypatch, text, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError, match=says) as refused:
        load_config("c.yaml")
    assert len(str(refused.value)) < 600 and not (tmp_path / "owned").exists()
    if text.startswith("method: "):
        with pytest.raises(InputError):
            load_config(tiny_config(tmp_path, tmp_path), [text.replace(": ", "=", 1)])


def test_postscript_under_a_false_name_is_not_handed_to_an_interpreter(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(x) print\n%%EOF\n")
    with pytest.raises(InputError, match="not a readable image file"):
        read_photo(path)
