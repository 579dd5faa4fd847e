"""The method: two adversarial steps, the data-free loop around them, and training with data as the control.

Nothing here imports `datasets`: that the data-free loop cannot see a real image is a property a test checks.
"""

from dfad_seg.distill.data_free import GameSettings, distil_data_free
from dfad_seg.distill.hooks import Hooks
from dfad_seg.distill.memory import ReplayMemory
from dfad_seg.distill.norm import batch_norm_mode
from dfad_seg.distill.schedules import build_schedule
from dfad_seg.distill.steps import generator_step, student_step, supervised_step
from dfad_seg.distill.with_data import TrainingSettings, distil_with_data, train_supervised

__all__ = [
    "GameSettings",
    "Hooks",
    "ReplayMemory",
    "TrainingSettings",
    "batch_norm_mode",
    "build_schedule",
    "distil_data_free",
    "distil_with_data",
    "generator_step",
    "student_step",
    "supervised_step",
    "train_supervised",
]
