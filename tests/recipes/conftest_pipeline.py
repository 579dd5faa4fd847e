"""Running the tools, and tiny configs for them."""

from pathlib import Path

import yaml

from dfad_seg.cli import main

REPOSITORY = Path(__file__).parent.parent.parent
STUDENT = {"source": "smp", "arch": "DeepLabV3Plus", "encoder_name": "tu-test_efficientnet", "decoder_channels": 16}


def call_tool(tool, *arguments):
    """Run a command in this process; returns its exit code."""
    return main([tool, *map(str, arguments)])


def tiny(method, data, **changes):
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


def write(path, values):
    path.write_text(yaml.safe_dump(values))
    return path
