"""The method: two adversarial steps, the data-free game around them, and training with data as the control.

Nothing here imports `datasets`: that the game cannot see a real image is a property a test checks.
"""

from dfad_seg.distill.distil import distil
from dfad_seg.distill.game import DataFree, Game, Replay, Supervised, Training, WithData
from dfad_seg.distill.hooks import Hooks
from dfad_seg.distill.losses import Losses, losses_of
from dfad_seg.distill.memory import ReplayMemory
from dfad_seg.distill.optimizers import OPTIMIZERS, SCHEDULES, build_optimizer, build_schedule
from dfad_seg.distill.steps import Step, batch_norm_mode, generator_step, student_step, supervised_step
from dfad_seg.distill.with_data import train_with_data
