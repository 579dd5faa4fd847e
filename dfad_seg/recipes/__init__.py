"""Config to objects to run: the only place that knows everything."""

from dfad_seg.config import shipped_configs
from dfad_seg.recipes.build import meta_info
from dfad_seg.recipes.commands import train_from_arguments
from dfad_seg.recipes.evaluate import evaluate
from dfad_seg.recipes.evaluate_command import evaluate_from_arguments
from dfad_seg.recipes.experiment import assemble, build_experiment
from dfad_seg.recipes.export_command import export_from_arguments
from dfad_seg.recipes.inspect_command import inspect_from_arguments
from dfad_seg.recipes.provenance import student_steps
from dfad_seg.recipes.run import run_method, train, train_in_process
from dfad_seg.recipes.sources import Source, load_role, open_source
from dfad_seg.recipes.stages import train_once

__all__ = [
    "Source",
    "assemble",
    "build_experiment",
    "evaluate",
    "evaluate_from_arguments",
    "export_from_arguments",
    "inspect_from_arguments",
    "load_role",
    "meta_info",
    "open_source",
    "run_method",
    "shipped_configs",
    "student_steps",
    "train",
    "train_from_arguments",
    "train_in_process",
    "train_once",
]
