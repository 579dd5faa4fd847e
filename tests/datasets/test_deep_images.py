"""Images of more than 8 bits and of other channels than three, as data sets read them."""

import struct
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
import torch

from dfad_seg.common.errors import InputError
from dfad_seg.common.samples import read_image
from dfad_seg.datasets.transforms import EvalTransform, TrainingData, TrainTransform
from dfad_seg.evaluation.pictures import as_picture

DEEP = np.arange(0, 12 * 350, 350, dtype=np.uint16).reshape(3, 4)  # 0 to 3850, of 12 bits


def dicom(path: Path, samples: np.ndarray, kind: str = "MONOCHROME2", slope: float = 1.0, shift: float = 0.0) -> None:
    file = pydicom.Dataset()
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    file.SOPClassUID, file.SOPInstanceUID = pydicom.uid.CTImageStorage, "1.2.3"
    file.RescaleSlope, file.RescaleIntercept = slope, shift
    file.set_pixel_data(samples, kind, 12)
    file.save_as(path, enforce_file_format=True)


def write_samples(path: Path, samples: np.ndarray) -> Path:
    if path.suffix == ".npy":
        np.save(path, samples)
    elif path.suffix == ".dcm":
        dicom(path, samples)
    else:
        cv2.imwrite(str(path), samples)
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy", ".dcm"])
def test_stated_ranges_and_grey_for_networks_of_three_channels(suffix, tmp_path):
    path = write_samples(tmp_path / f"a{suffix}", DEEP)
    expected = (DEEP / 4000).astype(np.float32)
    found = read_image(path, 1, (0, 4000)).pixels
    assert found.dtype == np.float32 and found.shape == (3, 4, 1)
    np.testing.assert_allclose(found[..., 0], expected, atol=1e-6)
    np.testing.assert_array_equal(read_image(path, 3, (0, 4000)).pixels, found.repeat(3, axis=2))
    np.testing.assert_allclose(read_image(path, 1, (700, 1400)).pixels[0, :, 0], [0, 0, 0, 0.5])
    assert read_image(path, 1, (700, 1400)).pixels.max() == 1


def test_colours_keep_their_order_and_dicom_its_units(tmp_path):
    colours = np.stack([DEEP, DEEP // 2, DEEP // 3, DEEP // 4], axis=-1)
    cv2.imwrite(str(tmp_path / "c.png"), colours[..., [2, 1, 0]])
    found = read_image(tmp_path / "c.png", 3, (0, 65535)).pixels
    np.testing.assert_allclose(found, colours[..., :3] / 65535, atol=1e-6)
    cv2.imwrite(str(tmp_path / "d.png"), colours.astype(np.uint8)[..., [2, 1, 0, 3]])
    np.testing.assert_array_equal(read_image(tmp_path / "d.png", 4).pixels, colours.astype(np.uint8))
    np.save(tmp_path / "e.npy", np.dstack([colours, colours]) / 4000)
    assert read_image(tmp_path / "e.npy", 8, (0, 1)).pixels.shape == (3, 4, 8)
    dicom(tmp_path / "ct.dcm", DEEP, slope=1.0, shift=-1000.0)
    units = (DEEP.astype(np.float32) - 1000 + 200) / 1000
    found = read_image(tmp_path / "ct.dcm", 1, (-200, 800)).pixels
    np.testing.assert_allclose(found[..., 0], units.clip(0, 1), atol=1e-6)
    dicom(tmp_path / "x.dcm", DEEP, kind="MONOCHROME1")  # the smallest value is white
    np.testing.assert_allclose(read_image(tmp_path / "x.dcm", 1, (0, 4000)).pixels[..., 0], 1 - DEEP / 4000, atol=1e-6)


def test_what_cannot_be_read_so(tmp_path):
    grey, colour = np.full((3, 4), 7, np.uint8), np.zeros((3, 4, 3), np.uint8)
    colour[..., 1] = 9
    odd = np.full((3, 4), np.nan, np.float32)
    for name, samples, channels, span, message in (
        ("deep.png", DEEP, 1, None, "16-bit samples.*img_range"),
        ("deep.npy", DEEP, 1, None, "uint16 samples; state which values are black and white"),
        ("deep.png", DEEP, 4, (0, 4095), "has 1 channels, and the network takes 4"),
        ("colour.png", colour, 1, None, "has 3 channels, and the network takes 1"),
        ("grey.png", grey, 1, (0, 4095), "8-bit samples, whose range is 0 to 255: leave out img_range"),
        ("odd.tif", odd, 1, (0, 1), "values that are not finite"),
        ("wrong.png", DEEP + 9, 1, (0, 1), "from 9 to 3859, all of them outside img_range, 0 to 1"),
        ("empty.npy", np.zeros((0, 4)), 1, (0, 1), "one image"),
        ("stack.npy", np.zeros((2, 3, 4, 1)), 1, (0, 1), "one image"),
        ("object.npy", np.array([[None]]), 1, (0, 1), "is damaged"),
    ):
        with pytest.raises(InputError, match=message):
            read_image(write_samples(tmp_path / name, samples), channels, span)
    for name in ("a.png", "a.npy", "a.dcm"):
        (tmp_path / name).write_bytes(b"no image")
        with pytest.raises(InputError, match="is damaged"):
            read_image(tmp_path / name, 1, (0, 1))
    assert read_image(write_samples(tmp_path / "grey.png", grey), 1).pixels.tolist() == grey[..., None].tolist()


@pytest.mark.parametrize(("channels", "dtype"), [(1, np.uint8), (2, np.float32), (3, np.float32), (5, np.uint8)])
def test_samples_of_any_channels_are_augmented_and_drawn(channels, dtype, tmp_path):
    rng = np.random.default_rng(0)
    image, mask = rng.random((40, 60, channels), np.float32), np.zeros((40, 60), np.uint8)
    image = (255 * image).astype(np.uint8) if dtype == np.uint8 else image
    options = TrainingData(short_side=44, scale=(0.7, 1.3), color_jitter=0.3)
    transform = TrainTransform(options, (32, 48), channels)
    for seed in range(3):
        changed, labels = transform(image, mask, seed)
        assert changed.shape == (32, 48, channels) and changed.dtype == dtype and labels.shape == (32, 48)
        assert changed.min() >= 0 and changed.max() <= (255 if dtype == np.uint8 else 1)
    assert EvalTransform(short_side=20)(image, mask)[0].shape == (20, 30, channels)
    drawn = as_picture(image if dtype == np.uint8 else torch.from_numpy(image).permute(2, 0, 1))
    values = image.astype(np.float64) * (1 if dtype == np.uint8 else 255)
    shown = values[..., :3] if channels > 2 else values.mean(-1, keepdims=True).repeat(3, -1)
    assert drawn.dtype == np.uint8 and np.abs(drawn - shown).max() <= 1


def test_sizes_are_judged_before_anything_is_decoded(tmp_path):
    dicom(tmp_path / "a.dcm", DEEP)
    file = pydicom.dcmread(tmp_path / "a.dcm")
    file.Rows = file.Columns = 60_000
    file.save_as(tmp_path / "a.dcm")
    entries = b"".join(struct.pack("<HHLL", tag, 4, 1, 60_000) for tag in (256, 257))
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<LH", 8, 2) + entries + bytes(4))
    for name in ("a.dcm", "a.tif"):
        with pytest.raises(InputError, match="more than 80 million pixels"):
            read_image(tmp_path / name, 1, (0, 4095))
