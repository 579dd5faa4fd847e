"""One flat, validated config per experiment.

All mistakes in a file are reported together, each with its key and, for a misspelt key, the nearest known one.
"""

from dfad_seg.config.dataset import DatasetConfig, parse_dataset
from dfad_seg.config.reading import dump_config, find_config, load_config, parse_config, shipped_configs
from dfad_seg.config.schema import Config
from dfad_seg.config.sections import (
    EvaluationConfig,
    GeneratorConfig,
    OptimizerConfig,
    ReportConfig,
    ScheduleConfig,
    SegmentorConfig,
    TrainingDataConfig,
)
from dfad_seg.config.values import apply_override

__all__ = [
    "Config",
    "DatasetConfig",
    "EvaluationConfig",
    "GeneratorConfig",
    "OptimizerConfig",
    "ReportConfig",
    "ScheduleConfig",
    "SegmentorConfig",
    "TrainingDataConfig",
    "apply_override",
    "dump_config",
    "find_config",
    "load_config",
    "parse_config",
    "parse_dataset",
    "shipped_configs",
]
