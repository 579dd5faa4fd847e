"""One flat, validated config per experiment."""

from __future__ import annotations

from dfad_seg.config.dataset import DatasetConfig, parse_dataset
from dfad_seg.config.schema import (
    Config,
    EvaluationConfig,
    GeneratorConfig,
    OptimizerConfig,
    ScheduleConfig,
    SegmentorConfig,
    TrainingDataConfig,
    dump_config,
    load_config,
    parse_config,
)
from dfad_seg.config.values import apply_override

__all__ = [
    "Config",
    "DatasetConfig",
    "EvaluationConfig",
    "GeneratorConfig",
    "OptimizerConfig",
    "ScheduleConfig",
    "SegmentorConfig",
    "TrainingDataConfig",
    "apply_override",
    "dump_config",
    "load_config",
    "parse_config",
    "parse_dataset",
]
