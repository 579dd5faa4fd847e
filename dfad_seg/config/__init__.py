"""One flat, validated config per experiment.

All mistakes in a file are reported together, each with its key and, for a misspelt key, the nearest known one.
"""

from dfad_seg.config.reading import dump_config, load_config, parse_config
from dfad_seg.config.schema import Config
from dfad_seg.config.sections import (
    DatasetConfig,
    EvaluationConfig,
    GeneratorConfig,
    OptimizerConfig,
    ScheduleConfig,
    SegmentorConfig,
    TrainingDataConfig,
)

__all__ = [
    "Config",
    "DatasetConfig",
    "EvaluationConfig",
    "GeneratorConfig",
    "OptimizerConfig",
    "ScheduleConfig",
    "SegmentorConfig",
    "TrainingDataConfig",
    "dump_config",
    "load_config",
    "parse_config",
]
