"""Compress semantic-segmentation networks without their training data."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Resolved on first use: `import dfad_seg` and `--help` should not wait for torch.
_EXPORTS = {
    "InputError": "dfad_seg.common.errors",
    "load_config": "dfad_seg.config",
    "parse_config": "dfad_seg.config",
    "build_segmentor": "dfad_seg.segmentors",
    "load_segmentor": "dfad_seg.segmentors",
    "freeze": "dfad_seg.segmentors",
    "build_generator": "dfad_seg.generators",
    "build_dataset": "dfad_seg.datasets",
    "distil_data_free": "dfad_seg.distill",
    "student_step": "dfad_seg.distill",
    "generator_step": "dfad_seg.distill",
    "evaluate_miou": "dfad_seg.api",
    "DataFreeDistiller": "dfad_seg.api",
    "Segmentor": "dfad_seg.segmentors",
    "export": "dfad_seg.export",
    "evaluate": "dfad_seg.recipes",
    "load_role": "dfad_seg.recipes",
    "train": "dfad_seg.recipes",
}

__all__ = ["__version__", *_EXPORTS]

if TYPE_CHECKING:
    from dfad_seg.api import DataFreeDistiller as DataFreeDistiller
    from dfad_seg.api import evaluate_miou as evaluate_miou
    from dfad_seg.common.errors import InputError as InputError
    from dfad_seg.config import load_config as load_config
    from dfad_seg.config import parse_config as parse_config
    from dfad_seg.datasets import build_dataset as build_dataset
    from dfad_seg.distill import distil_data_free as distil_data_free
    from dfad_seg.distill import generator_step as generator_step
    from dfad_seg.distill import student_step as student_step
    from dfad_seg.export import export as export
    from dfad_seg.generators import build_generator as build_generator
    from dfad_seg.recipes import evaluate as evaluate
    from dfad_seg.recipes import load_role as load_role
    from dfad_seg.recipes import train as train
    from dfad_seg.segmentors import Segmentor as Segmentor
    from dfad_seg.segmentors import build_segmentor as build_segmentor
    from dfad_seg.segmentors import freeze as freeze
    from dfad_seg.segmentors import load_segmentor as load_segmentor


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'dfad_seg' has no attribute '{name}'")
