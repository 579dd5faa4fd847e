"""Files are written whole, and nothing but a file is ever replaced."""

import errno
import os
import socket
import stat
from pathlib import Path

import pytest

from dfad_seg.common.errors import InputError
from dfad_seg.common.files import check_target, open_whole, remove_temporaries, write_folder, write_text


@pytest.fixture
def odd(tmp_path, monkeypatch):
    """A folder with everything that a path can be."""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    for folder in (home / "folder", elsewhere):
        folder.mkdir(parents=True)
    for file in (home / "file", elsewhere / "theirs"):
        file.write_text("old")
    os.mkfifo(home / "fifo")
    (home / "inside").symlink_to("file")
    (home / "outside").symlink_to(elsewhere / "theirs")
    (home / "way_out").symlink_to(elsewhere)
    (home / "dangling").symlink_to("nowhere")
    (home / "circle").symlink_to("circle")
    (home / "device").symlink_to("/dev/null")
    monkeypatch.chdir(home)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("socket")
    yield home
    listener.close()


REFUSED = {
    "/dev/null": "is no regular file",
    "/dev/stdout": "is no regular file|link to another folder",
    "fifo": "fifo is no regular file",
    "socket": "is no regular file",
    "device": "is no regular file",
    "folder": "is a folder",
    "outside": "a link to another folder",
    "dangling": "No such file",
    "circle": "Too many levels",
    "file/below": "is no folder",
    "fifo/below": "is no folder",
    "dangling/below": "is no folder",
    "x" * 300: "File name too long",
    "new/" + "x" * 300 + "/file": "File name too long",
    "y/" * 2500 + "file": "File name too long",
    "nul\0": "null",
    "/proc/dfad_seg/file": "No such file|cannot write into|Permission",
    "file/\x1b[2Jerror: all is lost\n": "is no folder",
}


@pytest.mark.parametrize("path", REFUSED, ids=lambda path: path.replace("\0", "0")[:20])
def test_what_is_no_file_is_refused_and_stays(path, odd):
    before = sorted((p.name, p.lstat().st_mode, p.lstat().st_ino) for p in odd.iterdir())
    for attempt in (lambda: check_target(path, "--out"), lambda: write_text(path, "new")):
        with pytest.raises(InputError, match=REFUSED[path]) as refused:
            attempt()
        assert "\x1b" not in str(refused.value) and "\n" not in str(refused.value)
    assert sorted((p.name, p.lstat().st_mode, p.lstat().st_ino) for p in odd.iterdir()) == before
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode) and (odd.parent / "elsewhere/theirs").read_text() == "old"


def test_files_links_beside_them_and_new_folders_are_written(odd):
    for path in ("file", "inside", "new/folder/file", "x" * 255, "way_out/new", "é" * 120):
        check_target(path, "--out")
        write_text(path, "new")
        assert Path(path).read_text() == "new" and not Path(path).is_symlink()
    check_target("folder", folder=True)
    check_target("more/folders", folder=True)
    with pytest.raises(InputError, match="--dir file cannot be written: .*file is no folder"):
        check_target("file", "--dir", folder=True)
    assert not Path("more").exists() and not [p for p in odd.rglob("*.tmp")]


def test_a_failed_write_leaves_the_old_file_and_no_folder(odd):
    for path in ("file", "made/for/it"):
        with pytest.raises(OSError, match="full"), open_whole(path) as handle:
            handle.write(b"half")
            raise OSError(errno.ENOSPC, "full")
    assert (odd / "file").read_text() == "old" and not Path("made").exists()
    assert not [p for p in odd.rglob("*.tmp")]


def test_a_folder_is_written_whole_or_not_at_all(odd, monkeypatch):
    files = {"a": b"1", "b": b"2"}
    for path in ("new/folder", "folder", "way_out/folder"):
        write_folder(path, {"a": b"0"})
        write_folder(path, files)
        assert {p.name: p.read_bytes() for p in Path(path).iterdir()} == files
    Path("new/folder/mine").write_text("x")
    with pytest.raises(InputError, match="it holds mine"):
        write_folder("new/folder", files)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    for path in ("more/folders", "folder"):
        with pytest.raises(OSError, match="full"):
            write_folder(path, {"a": b"3", "b": b"4"})
    assert Path("folder/a").read_bytes() == b"1" and not Path("more").exists()
    assert not [p for p in odd.parent.rglob("*.tmp")]


def test_what_a_killed_process_left_is_removed(tmp_path):
    (tmp_path / ".student.x.tmp").write_text("half")
    (tmp_path / ".folder.x.tmp" / "new").mkdir(parents=True)
    (tmp_path / "kept.tmp").write_text("a user's")
    remove_temporaries(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["kept.tmp"]
