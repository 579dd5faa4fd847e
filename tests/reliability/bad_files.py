"""Checkpoints that are wrong, as a table of ways to break a good one; and a good annotation file to damage."""

import io
import pickle

import torch


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
    "a text": (lambda: b"hello", ["cannot be read|is no checkpoint"]),
    "zeros": (lambda: bytes(1000), ["cannot be read|is no checkpoint"]),
    "zip of nothing": (lambda: b"PK\x05\x06" + bytes(18), ["cannot be read|is no checkpoint"]),
    "cut in the middle": (lambda: state_with()[:2000], ["cannot be read|is no checkpoint"]),
    "without its end": (lambda: state_with()[:-30], ["cannot be read|is no checkpoint"]),
    "pickle of a class": (pickled, ["cannot be read|is no checkpoint"]),
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
    "sparse": (lambda: state_with(**{"0__bias": torch.zeros(8).to_sparse()}), ["not plain|could run any code"]),
    "a view of one number": (lambda: state_with(**{"0__bias": torch.zeros(1).expand(8)}), ["repeat their values"]),
}


GOOD_COCO = {
    "images": [{"id": 1, "file_name": "a.png", "height": 32, "width": 48}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": [[1, 1, 9, 1, 9, 9, 1, 9]]}
    ],
    "categories": [{"id": 1, "name": "cat"}],
}
