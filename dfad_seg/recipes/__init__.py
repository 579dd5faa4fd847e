"""One recipe a command, each read from top to bottom: the only room that knows everything."""

from dfad_seg.config import list_configs, load_config, shipped_configs
from dfad_seg.recipes.evaluate import evaluate
from dfad_seg.recipes.evaluate_command import evaluate_from_arguments
from dfad_seg.recipes.export import export_from_arguments
from dfad_seg.recipes.inspect import inspect_teacher
from dfad_seg.recipes.train import train, train_from_arguments
from dfad_seg.runs import compare_runs
