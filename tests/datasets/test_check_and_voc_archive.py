"""The report on a whole data set, and unpacking Pascal VOC's archive."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from coco_samples import OPTIONS, SQUARE, annotation, content, write_set
from PIL import Image

from dfad_seg.cli import main
from dfad_seg.common.errors import InputError
from dfad_seg.datasets import download
from dfad_seg.datasets.check import inspect_dataset
from dfad_seg.datasets.prepare import prepare_voc

PUT = "VOCdevkit/VOC2012"


def png(mode: str, value: int, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (6, 4), value).save(buffer, kind)
    return buffer.getvalue()


def voc_files() -> dict[str, bytes]:
    files = {f"{PUT}/Annotations/a.xml": b"<x/>", f"{PUT}/SegmentationObject/a.png": png("L", 1)}
    for number, name in enumerate("abc"):
        files[f"{PUT}/JPEGImages/{name}.jpg"] = png("RGB", 0x102030, "JPEG")
        files[f"{PUT}/SegmentationClass/{name}.png"] = png("L", number)
    lists = {"train": "a\nb\n", "val": "c\n", "trainval": "a\nb\nc\n"}
    return files | {f"{PUT}/ImageSets/Segmentation/{split}.txt": text.encode() for split, text in lists.items()}


def tar_of(path: Path, files: dict[str, bytes], change: Callable[[tarfile.TarInfo], object] | None = None) -> str:
    """Write a tar file; returns its md5 sum."""
    with tarfile.open(path, "w") as opened:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if change is not None:
                change(info)
            opened.addfile(info, io.BytesIO(data))
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_voc_is_unpacked_checked_and_kept(tmp_path: Path) -> None:
    md5 = tar_of(tmp_path / "voc.tar", voc_files())
    root = tmp_path / "data"
    counts = {"train": 2, "val": 1, "trainval": 3}
    assert prepare_voc(root, archive=tmp_path / "voc.tar", md5=md5, any_count=True) == counts
    assert [path.name for path in root.iterdir()] == ["VOCdevkit"] and (tmp_path / "voc.tar").exists()
    found = {path.name for path in (root / PUT).iterdir()}
    assert found == {"JPEGImages", "SegmentationClass", "ImageSets"}  # nothing that segmentation does not need
    assert prepare_voc(root, any_count=True) == counts  # no archive is asked for any more
    with pytest.raises(InputError, match="split 'train' has 2 images; 1464 are expected. Nothing was changed"):
        prepare_voc(root)


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        ("wrong sum", "is not the official VOC 2012 archive: its md5 sum is [0-9a-f]{32}, not 0000"),
        ("no tar", "is not an intact tar archive"),
        ("cut", "no mask in .*SegmentationClass for image .*b.jpg|no Pascal VOC 2012 at"),
        ("other content", "no Pascal VOC 2012 at"),
        ("missing", "cannot read .*voc.tar: No such file"),
        ("bad mask", "c.png holds label 77"),
    ],
)
def test_bad_archives_leave_nothing_behind(tmp_path: Path, archive: str, message: str) -> None:
    path, root = tmp_path / "voc.tar", tmp_path / "data"
    files = voc_files()
    if archive == "bad mask":
        files[f"{PUT}/SegmentationClass/c.png"] = png("L", 77)
    if archive == "other content":
        files = {"README": b"hello"}
    tar_of(path, files)
    if archive == "no tar":
        path.write_bytes(b"<html>" * 1000)
    if archive == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    md5 = "0" * 32 if archive == "wrong sum" else hashlib.md5(path.read_bytes()).hexdigest()
    if archive == "missing":
        path.unlink()
    with pytest.raises(InputError, match=message):
        prepare_voc(root, archive=path, md5=md5, any_count=True)
    assert not root.exists() or list(root.iterdir()) == []
    assert path.exists() == (archive != "missing")


@pytest.mark.parametrize("name", ["../evil.png", "/tmp/evil.png", "a/../../evil.png", "..\\evil.png", "C:\\e.png"])
def test_tar_members_that_point_outside_are_refused(tmp_path: Path, name: str) -> None:
    tar_of(tmp_path / "a.tar", {"good.png": b"good", name: b"evil"})
    with pytest.raises(InputError, match="points outside"):
        download.untar(tmp_path / "a.tar", tmp_path / "deep" / "target", lambda member: member)
    assert [path.name for path in tmp_path.rglob("*")] == ["a.tar"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_tar_links_devices_and_bombs_are_refused(tmp_path: Path, kind: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(info: tarfile.TarInfo) -> None:
        info.type, info.linkname, info.size = kind, "/etc/passwd", 0

    tar_of(tmp_path / "a.tar", {"link.png": b""}, change)
    with pytest.raises(InputError, match="link or device 'link.png'"):
        download.untar(tmp_path / "a.tar", tmp_path / "out", lambda member: member)
    assert download.untar(tmp_path / "a.tar", tmp_path / "out", lambda member: None) == 0
    monkeypatch.setattr(download, "MAX_MEMBER", 1000)
    tar_of(tmp_path / "a.tar", {"big.png": b"\0" * 5000})
    with pytest.raises(InputError, match="5000 bytes, too large"):
        download.untar(tmp_path / "a.tar", tmp_path / "out", lambda member: member)
    monkeypatch.setattr(download, "MAX_TAR_MEMBERS", 2)
    tar_of(tmp_path / "a.tar", dict.fromkeys("abc", b""))
    with pytest.raises(InputError, match="more than 2 files"):
        download.untar(tmp_path / "a.tar", tmp_path / "out", lambda member: member)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    for name, data in voc_files().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path


def test_a_report_counts_sizes_and_pixels(voc: Path) -> None:
    Image.new("RGB", (8, 4)).save(voc / PUT / "JPEGImages" / "a.jpg")
    pixels = np.zeros((4, 8), np.uint8)
    pixels[0] = 255
    Image.fromarray(pixels).save(voc / PUT / "SegmentationClass" / "a.png")
    found = inspect_dataset("voc", voc, any_count=True)
    assert found.problems == [] and found.counts == {"train": 2, "val": 1, "trainval": 3}
    assert found.sizes == {(4, 8): 1, (4, 6): 2}  # the images of trainval are not read again
    assert found.census.pixels[[0, 1, 2, 255]].tolist() == [24, 24, 24, 8] and found.census.pixels.sum() == 80
    sizes, classes = found.lines()
    assert sizes == "images read: 2 of 6x4, 1 of 8x4"
    assert "background 30.00%, aeroplane 30.00%" in classes and classes.endswith("ignored 10.00%")
    assert sum(inspect_dataset("voc", voc, any_count=True, sample=1).sizes.values()) == 2  # a of train, c of val


def test_all_faults_are_reported_together(voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    masks = voc / PUT / "SegmentationClass"
    (masks / "a.png").write_bytes(png("L", 99))
    (masks / "c.png").write_bytes(b"no")
    (voc / PUT / "ImageSets" / "Segmentation" / "trainval.txt").write_text("z\n")
    assert main(["prepare", "check", "--type", "voc", "--root", str(voc)]) == 2
    captured = capsys.readouterr()
    assert captured.out.splitlines()[0] == f"{voc}: 2 train, 1 val images"
    error = captured.err[captured.err.index("error: ") :]
    assert error.startswith("error: 5 problems:\n")
    for part in (
        "trainval.txt names 'z'",
        "'train' has 2 images; 1464",
        "'val' has 1 images",
        "label 99",
        "c.png",
    ):
        assert part in error
    assert "Traceback" not in error


def test_missing_lists_are_no_silence(voc: Path) -> None:
    (voc / PUT / "ImageSets" / "Segmentation" / "val.txt").unlink()
    assert any("val.txt" in problem for problem in inspect_dataset("voc", voc, any_count=True).problems)


def test_check_takes_the_config_keys_of_a_type(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_set(tmp_path, content(annotation(1, 3, [SQUARE])))
    command = ["prepare", "check", "--type", "coco", "--root", str(tmp_path), "--options"]
    options = [f"{key}={value}" for key, value in OPTIONS.items()]
    assert main([*command, *options, "classes=[cat]"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == f"{tmp_path}: 1 val images" and shown[1] == "  images read: 1 of 30x20"
    assert shown[2].startswith("  pixels: background ") and ", cat " in shown[2] and "dog" not in shown[2]
    for wrong, message in (
        ([*options, "clases=[cat]"], "clases: unknown key. Did you mean 'classes'"),
        ([*options, "background=maybe"], "background: input should be a valid boolean"),
        (options[:1], "image_dir: this key is needed"),
        (["classes"], "--options: 'classes' is not of the form key=value"),
        ([*options, "img_dir=x"], "img_dir: unknown key"),
    ):
        assert main([*command, *wrong]) == 2
        assert message in capsys.readouterr().err
    assert main(["prepare", "check", "--type", "cocoo", "--root", str(tmp_path)]) == 2
    assert "unknown data set type 'cocoo'" in capsys.readouterr().err
