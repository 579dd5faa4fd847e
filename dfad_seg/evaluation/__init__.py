"""Confusion matrix, metrics as MMSegmentation defines them, inference modes, evaluator, stored predictions, results."""

from dfad_seg.evaluation.bootstrap import Difference, Interval, miou_difference, miou_interval
from dfad_seg.evaluation.coco_results import CocoResults, CocoResultsWriter
from dfad_seg.evaluation.confusion import ConfusionMatrix
from dfad_seg.evaluation.evaluator import STORED, evaluate_miou
from dfad_seg.evaluation.inference import predict
from dfad_seg.evaluation.meters import Agreement, BoundaryIoU, CalibrationError, ImageCounts, Meter, Predicted
from dfad_seg.evaluation.metrics import SegmentationMetrics, metrics_from_confusion
from dfad_seg.evaluation.options import EvaluationOptions, Inference
from dfad_seg.evaluation.predictions import PredictionFolder, PredictionWriter
from dfad_seg.evaluation.results import Comparison, Evaluation, write_result
from dfad_seg.evaluation.tables import align, percent
