"""Config to objects to run: the only place that knows everything."""

from dfad_seg.pipeline.commands import evaluate_from_arguments, train_from_arguments
from dfad_seg.pipeline.evaluate import evaluate_network, load_role
from dfad_seg.pipeline.run import build_experiment, train

__all__ = [
    "build_experiment",
    "evaluate_from_arguments",
    "evaluate_network",
    "load_role",
    "train",
    "train_from_arguments",
]
