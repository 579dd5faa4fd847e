"""The networks that are timed. Weights are random: they cost what trained ones cost."""

from __future__ import annotations

from typing import Any

import torch

from dfad_seg.generators import ImageGenerator, build_generator
from dfad_seg.segmentors import Segmentor, build_segmentor

NUM_CLASSES = 11
STUDENT_STEPS = 5
"""k of the paper: student steps per generator step."""

PAIRS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "paper": (
        {"source": "torchvision", "arch": "deeplabv3_resnet50"},
        {"source": "torchvision", "arch": "deeplabv3_mobilenetv2", "output_stride": 8},
    ),
    "small": (
        {"source": "smp", "arch": "DeepLabV3Plus", "encoder_name": "mobilenet_v2"},
        {"source": "smp", "arch": "DeepLabV3Plus", "encoder_name": "timm-mobilenetv3_small_100"},
    ),
}
"""Teacher and student: those of configs/camvid/dfad_paper_*.yaml and of configs/camvid/dfad_cpu.yaml."""

LABELS = {
    "paper": "DeepLabV3-ResNet50 → DeepLabV3-MobileNetV2",
    "small": "DeepLabV3+ MobileNetV2 → DeepLabV3+ MobileNetV3-small",
}


def build_pair(name: str, size: tuple[int, int]) -> tuple[Segmentor, Segmentor, ImageGenerator]:
    """Teacher (in evaluation mode), student and the paper's generator, always with the same random weights."""
    torch.manual_seed(0)
    teacher, student = (build_segmentor(num_classes=NUM_CLASSES, **options) for options in PAIRS[name])
    generator = build_generator("dcgan", num_classes=NUM_CLASSES, image_size=size)
    return teacher.eval(), student.train(), generator.train()
