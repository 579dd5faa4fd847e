"""Compress semantic-segmentation networks without their training data."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Resolved on first use: `import dfad_seg` and `--help` should not wait for torch.
_EXPORTS = {
    "InputError": "dfad_seg.common.errors",
    "load_config": "dfad_seg.config",
    "train": "dfad_seg.recipes",
    "evaluate": "dfad_seg.recipes",
    "distil": "dfad_seg.distill",
    "student_step": "dfad_seg.distill",
    "generator_step": "dfad_seg.distill",
    "Segmentor": "dfad_seg.segmentors",
    "build_segmentor": "dfad_seg.segmentors",
    "load_segmentor": "dfad_seg.segmentors",
    "export": "dfad_seg.exporting",
}

__all__ = ["__version__", *_EXPORTS]

if TYPE_CHECKING:
    from dfad_seg.common.errors import InputError as InputError
    from dfad_seg.config import load_config as load_config
    from dfad_seg.distill import distil as distil
    from dfad_seg.distill import generator_step as generator_step
    from dfad_seg.distill import student_step as student_step
    from dfad_seg.exporting import export as export
    from dfad_seg.recipes.evaluate import evaluate as evaluate
    from dfad_seg.recipes.train import train as train
    from dfad_seg.segmentors import Segmentor as Segmentor
    from dfad_seg.segmentors import build_segmentor as build_segmentor
    from dfad_seg.segmentors import load_segmentor as load_segmentor


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
