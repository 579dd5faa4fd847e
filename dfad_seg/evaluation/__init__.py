"""Confusion matrix, metrics as MMSegmentation defines them, evaluator, tables and pictures."""

from dfad_seg.evaluation.confusion import ConfusionMatrix
from dfad_seg.evaluation.evaluator import PixelAgreement, evaluate_miou
from dfad_seg.evaluation.metrics import SegmentationMetrics, metrics_from_confusion
from dfad_seg.evaluation.tables import format_comparison, format_summary, format_table

__all__ = [
    "ConfusionMatrix",
    "PixelAgreement",
    "SegmentationMetrics",
    "evaluate_miou",
    "format_comparison",
    "format_summary",
    "format_table",
    "metrics_from_confusion",
]
