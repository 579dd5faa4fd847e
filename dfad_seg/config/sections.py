"""The sections of an experiment's config."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dfad_seg.config.values import Decay, NonNegative, Positive, Rate, Size, Strict, Weight


class SegmentorConfig(BaseModel):
    """A network. Beside these keys it takes the options of its source, which checks them itself."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    source: str
    """Where the network comes from: smp, torchvision, torchscript, torch_export, factory, mmseg, or `saved` for a
    file that dfad_seg wrote and that knows its own architecture."""
    checkpoint: str | None = None
    """Weights to load, strictly; .pt, .pth or .safetensors."""

    def options(self) -> dict[str, Any]:
        """Everything but the source."""
        return self.model_dump(exclude={"source"}, exclude_none=True)


class GeneratorConfig(BaseModel):
    """The image generator, with the options of its type."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    type: str = "dcgan"
    """dcgan (the papers') or layout (conditional, any size)."""

    def options(self) -> dict[str, Any]:
        return self.model_dump(exclude={"type"})


class OptimizerConfig(Strict):
    """One player's optimiser."""

    type: Literal["sgd", "adam", "adamw"]
    """The algorithm."""
    lr: Rate
    """Learning rate before the schedule's factor."""
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None
    """SGD only; default 0.9."""
    betas: tuple[Decay | Literal[0], Decay] | None = None
    """Adam and AdamW only; default (0.9, 0.999)."""
    weight_decay: Weight = 0.0
    """Decoupled in AdamW."""
    lr_multipliers: dict[str, Weight] = {}
    """Factors on lr by a part of the parameters' names, such as {encoder: 0.1}; the first that fits counts."""

    @model_validator(mode="after")
    def _fits_type(self) -> OptimizerConfig:
        wrong = "betas" if self.type == "sgd" else "momentum"
        if getattr(self, wrong) is not None:
            raise ValueError(f"the {self.type} optimiser does not take {wrong}")
        return self


class ScheduleConfig(Strict):
    """Factor on all learning rates, by iteration."""

    type: Literal["constant", "step", "poly", "cosine"] = "constant"
    """Its form after the warm-up."""
    warmup: NonNegative = 0
    """Iterations of linear warm-up."""
    every: Positive | None = None
    """step: iterations between two decays."""
    gamma: Rate | None = None
    """step: the decay's factor, default 0.1."""
    power: Rate | None = None
    """poly: the exponent, default 0.9."""
    end: Weight | None = None
    """poly, cosine: the last factor, default 0."""

    @model_validator(mode="after")
    def _fits_type(self) -> ScheduleConfig:
        takes = {"constant": set(), "step": {"every", "gamma"}, "poly": {"power", "end"}, "cosine": {"end"}}
        given = {name for name in ("every", "gamma", "power", "end") if getattr(self, name) is not None}
        wrong = sorted(given - takes[self.type])
        if wrong:
            raise ValueError(f"a {self.type} schedule does not take {', '.join(wrong)}")
        if self.type == "step" and self.every is None:
            raise ValueError("a step schedule needs every: the iterations between two decays")
        return self


class EvaluationConfig(Strict):
    """How a network is scored on `dataset`."""

    split: str = "val"
    """Of the data set."""
    every: NonNegative = 0
    """Iterations between two evaluations; 0: at the end only. The last one is never skipped."""
    short_side: Positive | None = None
    """Resize image and labels to this shorter side; none: native size."""
    batch_size: Positive = 8
    """Images that are read together."""
    num_workers: NonNegative = 1
    """Processes that read images; 0: none but the main one."""
    crop_size: Size | None = None
    """Height and width of a sliding window; none: whole images."""
    crop_stride: Size | None = None
    """Rows and columns between two windows; default two thirds of crop_size."""
    scales: Annotated[tuple[Rate, ...], Field(min_length=1)] = (1.0,)
    """Sizes at which each image is answered; the probabilities are averaged."""
    flip: bool = False
    """Also answer the mirrored image, and average."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of the forward pass; auto: that of a training around it, else bf16 where this machine is faster so, else fp32."""


class TrainingDataConfig(Strict):
    """Augmentation of real training images; crops have the size `image_size`."""

    split: str = "train"
    """Of the data set."""
    short_side: Positive | None = None
    """Resize to this shorter side first."""
    scale: tuple[Rate, Rate] = (1.0, 1.0)
    """Random scaling between these factors."""
    hflip: bool = True
    """Mirror every other image."""
    color_jitter: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Strength of brightness, contrast and saturation changes."""
    num_workers: NonNegative = 2
    """Processes that read images; 0: none but the main one."""


class ReportConfig(Strict):
    """What the end of a run adds to its report; each part costs time. The report itself is always written."""

    latency: bool = True
    """Time the networks, up to two seconds each."""
    teacher: bool = True
    """Score the teacher as the student was scored; needs evaluation."""
    examples: Annotated[int, Field(ge=0, le=10)] = 3
    """Best and worst evaluated images to show, of each; costs one more evaluation. 0: none."""
