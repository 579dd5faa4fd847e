"""Config to objects to run: the only place that knows everything."""

from dfad_seg.pipeline.commands import train_from_arguments
from dfad_seg.pipeline.evaluate import Request, evaluate_network, evaluate_source
from dfad_seg.pipeline.evaluate_command import evaluate_from_arguments
from dfad_seg.pipeline.run import build_experiment, train
from dfad_seg.pipeline.sources import Source, load_role, open_source

__all__ = [
    "Request",
    "Source",
    "build_experiment",
    "evaluate_from_arguments",
    "evaluate_network",
    "evaluate_source",
    "load_role",
    "open_source",
    "train",
    "train_from_arguments",
]
