"""Checkpoints, images, masks, split files and annotation files that are wrong, as tables of ways to break good ones."""

import io
import json
import pickle
import struct
import zlib

import numpy as np
import torch
from PIL import Image


def network_state():
    from tiny_networks import network

    torch.manual_seed(1)
    return network(width=8).state_dict()


def saved(content):
    handle = io.BytesIO()
    torch.save(content, handle)
    return handle.getvalue()


def state_with(**changes):
    state = network_state() | {name.replace("__", "."): value for name, value in changes.items()}
    return saved({name: value for name, value in state.items() if value is not ...})


def pickled():
    return pickle.dumps({"weight": complex}, protocol=2)


# (content of a teacher's checkpoint, words of the message, alternatives with | between)
CHECKPOINTS = {
    "empty": (lambda: b"", ["is empty"]),
    "a text": (lambda: b"hello", ["cannot be read"]),
    "zeros": (lambda: bytes(1000), ["cannot be read"]),
    "zip of nothing": (lambda: b"PK\x05\x06" + bytes(18), ["cannot be read"]),
    "cut in the middle": (lambda: state_with()[:2000], ["cannot be read"]),
    "without its end": (lambda: state_with()[:-30], ["cannot be read"]),
    "pickle of a class": (pickled, ["cannot be read"]),
    "a list": (lambda: saved([1, 2]), ["holds no state dict", "list"]),
    "a number": (lambda: saved(5), ["holds no state dict"]),
    "a tensor": (lambda: saved(torch.zeros(3)), ["holds no state dict", "Tensor"]),
    "an empty mapping": (lambda: saved({}), ["holds no state dict"]),
    "numbers for weights": (lambda: saved({"0.weight": 5}), ["holds no state dict"]),
    "numbered keys": (lambda: saved({0: torch.zeros(1)}), ["holds no state dict"]),
    "only an epoch": (lambda: saved({"epoch": 3, "state_dict": None}), ["holds no state dict"]),
    "a key missing": (lambda: state_with(**{"0__weight": ...}), ["missing", "0.weight"]),
    "a key too many": (lambda: state_with(**{"9__weight": torch.zeros(1)}), ["unexpected", "9.weight"]),
    "another shape": (lambda: state_with(**{"0__weight": torch.zeros(8, 3, 5, 5)}), ["0.weight", "(8, 3, 5, 5)"]),
    "no dimensions": (lambda: state_with(**{"0__bias": torch.tensor(1.0)}), ["0.bias"]),
    "more classes": (
        lambda: state_with(**{"4__weight": torch.zeros(19, 8, 3, 3), "4__bias": torch.zeros(19)}),
        ["19 classes", "11"],
    ),
    "whole numbers": (lambda: state_with(**{"0__weight": torch.zeros(8, 3, 3, 3).long()}), ["number type"]),
    "not a number": (lambda: state_with(**{"0__bias": torch.full((8,), float("nan"))}), ["not finite", "0.bias"]),
    "infinite": (lambda: state_with(**{"1__running_var": torch.full((8,), float("inf"))}), ["not finite"]),
    "sparse": (lambda: state_with(**{"0__bias": torch.zeros(8).to_sparse()}), ["not plain", "0.bias"]),
    "a view of one number": (lambda: state_with(**{"0__bias": torch.zeros(1).expand(8)}), ["repeat their values"]),
}


def encoded(array, form="PNG", mode=None):
    handle = io.BytesIO()
    Image.fromarray(array, mode).save(handle, form)
    return handle.getvalue()


def grey(value=1, size=(32, 48)):
    return np.full(size, value, np.uint8)


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def header(width, height, depth=8, colour=0):
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))


def whole_png():
    return encoded(np.random.default_rng(0).integers(0, 255, (32, 48, 3), dtype=np.uint8))


# Content of the first image of a split of 48x32 pixels.
IMAGES = {
    "empty": (lambda: b"", ["not a readable image"]),
    "a text": (lambda: b"not an image", ["not a readable image"]),
    "cut": (lambda: whole_png()[:-500], ["damaged"]),
    "header only": (lambda: header(48, 32), ["damaged|not a readable"]),
    "giant": (lambda: header(60000, 60000) + chunk(b"IDAT", zlib.compress(b"")), ["80 million pixels"]),
    "no width": (lambda: header(0, 32) + chunk(b"IDAT", b"") + chunk(b"IEND", b""), ["image"]),
    "broken data": (lambda: header(48, 32) + chunk(b"IDAT", b"xxxxxxxx") + chunk(b"IEND", b""), ["damaged"]),
    "16 bits": (lambda: encoded(np.zeros((32, 48), np.uint16)), ["8-bit images are needed"]),
    "other size": (lambda: encoded(np.zeros((10, 12, 3), np.uint8)), ["12x10", "one size"]),
    "postscript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 32\n", ["not a readable image"]),
    "svg": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", ["not a readable image"]),
}
MASKS = {
    "empty": (lambda: b"", ["not a readable image"]),
    "colours": (lambda: encoded(np.zeros((32, 48, 3), np.uint8)), ["index mask is needed"]),
    "grey and opacity": (lambda: encoded(np.zeros((32, 48, 2), np.uint8), mode="LA"), ["index mask is needed"]),
    "16 bits": (lambda: encoded(np.zeros((32, 48), np.uint16)), ["index mask is needed"]),
    "a label too high": (lambda: encoded(grey(77)), ["label 77"]),
    "many labels": (lambda: encoded(np.arange(32 * 48, dtype=np.uint32).reshape(32, 48).astype(np.uint8)), ["label"]),
    "other size": (lambda: encoded(grey(size=(10, 12))), ["12x10", "one size"]),
    "cut": (lambda: encoded(np.random.default_rng(0).integers(0, 9, (32, 48), np.uint8))[:-200], ["damaged"]),
    "giant": (lambda: header(2**31 - 1, 2**31 - 1) + chunk(b"IDAT", zlib.compress(b"")), ["mask"]),
    "one bit": (lambda: encoded(np.zeros((32, 48), bool)), ["index mask is needed"]),
}

# Content of a split file of a set of the images a, b and c.
SPLIT_FILES = {
    "empty": (b"", ["is empty"]),
    "blank lines": (b"\n \n\t\n", ["is empty"]),
    "a name twice": (b"a\nb\na\n", ["'a' twice"]),
    "an unknown name": (b"a\nz\n", ["'z'"]),
    "a way out": (b"../a\n", ["'../a'"]),
    "a deep way out": (b"x/../../a\n", ["not a file below"]),
    "an absolute path": (b"/etc/passwd\n", ["'/etc/passwd'"]),
    "a windows way out": (b"..\\a\n", ["not a file below"]),
    "binary": (b"\xff\xfe\x00a", ["not UTF-8"]),
    "a null": (b"a\x00b\n", ["not a file below"]),
    "a picture": (b"\x89PNG\r\n\x1a\n", ["not UTF-8"]),
}

GOOD_COCO = {
    "images": [{"id": 1, "file_name": "a.png", "height": 32, "width": 48}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": [[1, 1, 9, 1, 9, 9, 1, 9]]}
    ],
    "categories": [{"id": 1, "name": "cat"}],
}


def coco(*path):
    """The good file with the last element of `path` put at the path before; `...` removes."""
    content = json.loads(json.dumps(GOOD_COCO))
    *keys, last, value = path
    node = content
    for key in keys:
        node = node[key]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return json.dumps(content).encode()


ANNOTATION, IMAGE = ("annotations", 0), ("images", 0)
COCO = {
    "empty": (b"", ["not JSON"]),
    "a list": (b"[]", ["must hold a JSON object"]),
    "cut": (coco("images", 0, "id", 1)[:50], ["not JSON"]),
    "deep": (b"[" * 100_000, ["not JSON"]),
    "latin-1": (b'{"images": "\xe4"}', ["not JSON"]),
    "no images": (coco("images", ...), ["no list 'images'"]),
    "no annotations": (coco("annotations", ...), ["no list 'annotations'"]),
    "no categories": (coco("categories", []), ["'categories'"]),
    "image twice": (coco("images", GOOD_COCO["images"] * 2), ["images"]),
    "image id a text": (coco(*IMAGE, "id", "1"), ["id"]),
    "image id true": (coco(*IMAGE, "id", True), ["id"]),
    "image elsewhere": (coco(*IMAGE, "file_name", "/etc/passwd"), ["not a file below"]),
    "image of no height": (coco(*IMAGE, "height", 0), ["height"]),
    "image of endless width": (coco(*IMAGE, "width", 10**12), ["million"]),
    "image of another size": (coco(*IMAGE, "height", 16), ["a.png"]),
    "image absent": (coco(*IMAGE, "file_name", "b.png"), ["b.png"]),
    "unknown image": (coco(*ANNOTATION, "image_id", 9), ["image 9"]),
    "unknown category": (coco(*ANNOTATION, "category_id", 9), ["category 9"]),
    "category of no name": (coco("categories", 0, "name", ""), ["name"]),
    "crowd": (coco(*ANNOTATION, "iscrowd", 2), ["iscrowd"]),
    "no segmentation": (coco(*ANNOTATION, "segmentation", []), ["no segmentation"]),
    "two points": (coco(*ANNOTATION, "segmentation", [[1, 1, 2, 2]]), ["4 numbers"]),
    "texts for points": (coco(*ANNOTATION, "segmentation", [["a"] * 6]), ["list of numbers"]),
    "far outside": (coco(*ANNOTATION, "segmentation", [[1, 1, 1e9, 1, 9, 9]]), ["far outside"]),
    "not a number": (coco(*ANNOTATION, "segmentation", [[1, 1, float("nan"), 1, 9, 9]]), ["far outside"]),
    "runs too short": (coco(*ANNOTATION, "segmentation", {"size": [32, 48], "counts": [5]}), ["does not cover"]),
    "runs below zero": (coco(*ANNOTATION, "segmentation", {"size": [32, 48], "counts": [-1, 1537]}), ["cover"]),
    "runs of another size": (coco(*ANNOTATION, "segmentation", {"size": [9, 9], "counts": [81]}), ["size"]),
    "runs as nonsense": (coco(*ANNOTATION, "segmentation", {"size": [32, 48], "counts": "\u2603"}), ["cover"]),
    "runs as a number": (coco(*ANNOTATION, "segmentation", {"size": [32, 48], "counts": 3}), ["list of numbers"]),
}
