"""Config to objects to run: the only place that knows everything."""

from dfad_seg.pipeline.build import meta_info
from dfad_seg.pipeline.commands import evaluate_from_arguments, train_from_arguments
from dfad_seg.pipeline.evaluate import evaluate_network, load_role
from dfad_seg.pipeline.run import assemble, build_experiment, run_method, train
from dfad_seg.pipeline.stages import train_once

__all__ = [
    "assemble",
    "build_experiment",
    "evaluate_from_arguments",
    "evaluate_network",
    "load_role",
    "meta_info",
    "run_method",
    "train",
    "train_from_arguments",
    "train_once",
]
