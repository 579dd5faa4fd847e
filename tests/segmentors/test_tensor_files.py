"""The reader of tensor files: equal to torch's own on good files, one refusal on files that lie."""

import functools
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from damage import Call
from torch import Tensor, nn

from dfad_seg.common.errors import InputError
from dfad_seg.common.tensors import read_tensors

GOOD: dict[str, Any] = {
    "state": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).state_dict(),
    "optimiser": torch.optim.Adam([nn.Parameter(torch.ones(2))]).state_dict(),
    "generator": torch.get_rng_state(),
    "types": {str(t): torch.ones(3).to(t) for t in (torch.bfloat16, torch.half, torch.bool, torch.complex64)},
    "views": [torch.arange(12.0)[3:7], torch.arange(12.0).view(3, 4).t(), torch.tensor(3), torch.empty(0, 5)],
    "plain": [1, 2.5, None, True, "text", b"\xff\x00", (1, (2,)), {"a"}, torch.float16, torch.Size([1, 2]), 1j],
}


def same(ours: Any, theirs: Any) -> None:
    assert type(ours) is type(theirs)
    if isinstance(ours, Tensor):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    elif isinstance(ours, dict):
        assert list(ours) == list(theirs)
        same(list(ours.values()), list(theirs.values()))
    elif isinstance(ours, (list, tuple)) and not isinstance(ours, torch.Size):
        assert len(ours) == len(theirs)
        for pair in zip(ours, theirs, strict=True):
            same(*pair)
    else:
        assert ours == theirs


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("crc", [True, False])
def test_reads_what_torch_reads(tmp_path: Path, zipped: bool, crc: bool) -> None:
    torch.serialization.set_crc32_options(crc)
    try:
        torch.save(GOOD, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    finally:
        torch.serialization.set_crc32_options(True)
    found = read_tensors(tmp_path / "a.pt")
    same(found, torch.load(tmp_path / "a.pt", weights_only=True))
    assert found["state"]._metadata == GOOD["state"]._metadata


def archive(path: Path, change: Any, compression: int = zipfile.ZIP_STORED) -> None:
    """A good file whose members `change(name, content)` rewrites."""
    handle = io.BytesIO()
    torch.save({"weight": torch.ones(1000)}, handle)
    with zipfile.ZipFile(handle) as old, zipfile.ZipFile(path, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))


DOUBLED = functools.reduce(lambda value, _: [value, value], range(60), ["x"])
ENDLESS: list = []
ENDLESS.append(ENDLESS)


def flipped(path: Path) -> None:
    torch.save({"weight": torch.ones(1000)}, path)
    data = bytearray(path.read_bytes())
    data[data.find(torch.ones(8).numpy().tobytes()) + 3] ^= 0x40  # the highest bit of an exponent
    path.write_bytes(data)


def twice_named(path: Path) -> None:
    archive(path, lambda _, content: content)
    with pytest.warns(UserWarning), zipfile.ZipFile(path, "a") as more:
        more.writestr(more.namelist()[0], b"x")


def written(content: Any, **options: Any) -> Any:
    return lambda path: torch.save(content, path, **options)


def in_legacy(content: Any) -> Any:
    return written(content, _use_new_zipfile_serialization=False)


PROTOCOL = b"\x80\x02"
LIES: dict[str, tuple[Any, str]] = {
    "deflated": (lambda p: archive(p, lambda n, c: c, zipfile.ZIP_DEFLATED), "compressed members"),
    "fewer bytes than claimed": (lambda p: archive(p, lambda n, c: c[:8] if "data/" in n else c), "larger than their"),
    "one bit": (flipped, "is damaged: the checksum of"),
    "one name twice": (twice_named, "two members of one name"),
    "another byte order": (lambda p: archive(p, lambda n, c: b"big" if "byteorder" in n else c), "byte order"),
    "a view of terabytes": (written({"w": torch.zeros(1).expand(2**40)}), "repeat their values"),
    "a view of terabytes, legacy": (in_legacy({"w": torch.zeros(1).expand(2**40)}), "repeat their values"),
    "one tensor often": (written([torch.zeros(2**18)] * 5000), "shows tensors of"),
    "countless tensors": (written([torch.zeros(0)] * 20_001), "has 20001 tensors, and at most 20000"),
    "sparse": (written({"w": torch.eye(3).to_sparse()}), "Python objects"),
    "without memory": (written({"w": torch.ones(2, device="meta")}), "Python objects"),
    "doubled": (written(DOUBLED), "more than 1000000 values"),
    "itself": (written(ENDLESS), "repeat without end"),
    "a number of a million bits": (written(1 << 10**6), "an integer of 1000001 bits"),
    "bytes on demand": (written(Call(bytearray, 2**40)), "Python objects"),
    "a tensor on demand": (written(Call(torch.FloatTensor, 2**40)), "Python objects"),
    "a state for a tensor": (lambda p: p.write_bytes(PROTOCOL + b"ctorch\nfloat32\n}b."), "sets the state of a dtype"),
    "a table as large as told": (lambda p: p.write_bytes(PROTOCOL + b"Nr\xff\xff\xff\x7f."), "no checkpoint of torch"),
    "code": (lambda p: p.write_bytes(pickle.dumps(Call(open, str(p) + ".owned", "w"), 2)), "Python objects"),
    "text": (lambda p: p.write_bytes(b"import os"), "no checkpoint"),
    "any zip": (lambda p: zipfile.ZipFile(p, "w").writestr("a", "b"), "not one that torch.save writes"),
    "half": (lambda p: p.write_bytes(b"PK\x03\x04" + bytes(80)), "damaged"),
    "empty": (lambda p: p.write_bytes(b""), "is empty"),
    "a folder": (lambda p: p.mkdir(), "not a file"),
    "nothing": (lambda p: None, "does not exist"),
}


@pytest.mark.parametrize("name", LIES)
@pytest.mark.filterwarnings("ignore")
def test_files_that_lie(tmp_path: Path, name: str) -> None:
    write, says = LIES[name]
    write(tmp_path / "a.pt")
    with pytest.raises(InputError, match=says) as refused:
        read_tensors(tmp_path / "a.pt", "student")
    assert str(refused.value).startswith(f"student {tmp_path / 'a.pt'} ") and len(str(refused.value)) < 500
    assert not (tmp_path / "a.pt.owned").exists()
