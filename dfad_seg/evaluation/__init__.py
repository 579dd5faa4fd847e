"""Confusion matrix, metrics as MMSegmentation defines them, inference modes, evaluator, stored predictions, results."""

from dfad_seg.evaluation.bootstrap import miou_interval, mious
from dfad_seg.evaluation.evaluator import STORED, evaluate_miou
from dfad_seg.evaluation.inference import EvaluationOptions, Inference, predict
from dfad_seg.evaluation.meters import ImageCounts, Predicted
from dfad_seg.evaluation.metrics import ConfusionMatrix, SegmentationMetrics, labels_named, metrics_from_confusion
from dfad_seg.evaluation.predictions import CocoResults, PredictionFolder, Stored, coco_results_writer, png_writer
from dfad_seg.evaluation.results import Comparison, Evaluation, align, percent
