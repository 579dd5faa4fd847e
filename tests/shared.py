"""What test files of several rooms share."""

import os
import subprocess
import sys
import warnings
from collections import OrderedDict

import numpy as np
import torch
import yaml
from PIL import Image
from torch import nn

from dfad_seg.cli import main

STUDENT = {"source": "smp", "arch": "DeepLabV3Plus", "encoder_name": "tu-test_efficientnet", "decoder_channels": 16}


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def save_image(path, pixels):
    """Write pixels, 0 to 255, as the file's suffix says, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


def contents(folder):
    """The bytes of all files in a folder, by their paths."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def python(*arguments, **environment):
    """What a fresh Python with one thread prints; it must end well."""
    command, env = [sys.executable, *map(str, arguments)], os.environ | {"OMP_NUM_THREADS": "1"} | environment
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=280)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def scripted(network, path, *, frozen=False):
    """A TorchScript file of a network."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.script(network.eval())
        torch.jit.save(torch.jit.freeze(script) if frozen else script, str(path))
    return path


def exported(network, path, *, dynamic=True):
    """A file of torch.export, for two images of 32x48 or for any."""
    sizes = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    program = torch.export.export(network, (torch.rand(2, 3, 32, 48),), dynamic_shapes=(sizes,) if dynamic else None)
    torch.export.save(program, path)
    return path


def tiny():
    """A network whose logits of five classes have half the images' resolution, with BatchNorm and dropout."""
    layers = {"features": nn.Conv2d(3, 8, 3, stride=2, padding=1), "norm": nn.BatchNorm2d(8), "relu": nn.ReLU()}
    layers |= {"dropout": nn.Dropout(0.5), "classifier": nn.Conv2d(8, 5, 1)}
    return nn.Sequential(OrderedDict(layers))


def trained_tiny():
    """A `tiny` in evaluation mode whose running statistics are not the initial ones."""
    torch.manual_seed(0)
    network = tiny()
    for _ in range(3):
        network(torch.rand(4, 3, 16, 16) * 2 - 1)
    return network.eval()


def call_tool(tool, *arguments):
    """Run a command in this process; returns its exit code."""
    return main([tool, *map(str, arguments)])


def experiment(method, data, **changes):
    """A config of a few seconds; `...` removes a key."""
    common = {
        "method": method,
        "dataset": {"type": "street_scenes", "root": str(data)},
        "evaluation": {"split": "val", "every": 2, "batch_size": 2, "num_workers": 0, "precision": "fp32"},
        "iterations": 3,
        "batch_size": 2,
        "image_size": [32, 48],
        "student_optimizer": {"type": "sgd", "lr": 0.01},
        "log_every": 1,
        "save_every": 1,
        "report": "short",
    }
    return {k: v for k, v in (common | changes).items() if v is not ...}


def write_yaml(path, values):
    path.write_text(yaml.safe_dump(values))
    return path
