"""The method from Python, in a few lines: for scripts and notebooks."""

from dfad_seg.api.distiller import DataFreeDistiller
from dfad_seg.api.scoring import evaluate_miou

__all__ = ["DataFreeDistiller", "evaluate_miou"]
