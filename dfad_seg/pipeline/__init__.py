"""Config to objects to run: the only place that knows everything."""

from dfad_seg.pipeline.train import build_experiment, train
from dfad_seg.pipeline.commands import train_from_arguments

__all__ = ["build_experiment", "train", "train_from_arguments"]
