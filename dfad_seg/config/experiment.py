"""One experiment: what the layers declare, put together. Nothing is declared here that a layer knows."""

from dataclasses import field
from typing import Annotated, ClassVar, Literal

from dfad_seg.common.values import Chosen, FileName, NonNegative, Positive, options, section
from dfad_seg.datasets import DATASETS, TrainingData
from dfad_seg.distill import DataFree, Game, Supervised, Training, WithData
from dfad_seg.evaluation import EvaluationOptions
from dfad_seg.generators import GENERATORS
from dfad_seg.segmentors import SOURCES, STUDENTS

Network = Annotated[Chosen, section(SOURCES, "source")]
Student = Annotated[Chosen, section(STUDENTS, "source")]
GeneratorSection = Annotated[Chosen, section(GENERATORS, "type")]
DatasetSection = Annotated[Chosen, section(DATASETS, "type")]


@options
class Config(Training):
    """What every experiment says, whatever its method; the method's own keys stand beside these."""

    data_free: ClassVar[bool] = False
    """Whether no real image is trained on."""

    method: Literal["supervised", "distill_with_data", "dfad", "random_noise"]
    """supervised: train on labels. distill_with_data: distil on real images (a control). dfad: distil without
    data. random_noise: distil on uniform noise (a control)."""
    teacher: Network | None = None
    """Frozen; in `supervised`, the network to train, if that is to become a teacher."""
    student: Student | None = None
    """The network that is trained; as a rule small."""
    dataset: DatasetSection | None = None
    """Real images and labels; data-free methods evaluate on them, and no more."""
    num_classes: Positive | None = None
    """Default: the dataset's."""
    evaluation: EvaluationOptions | None = None
    """Without it nothing is scored on the way."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: CUDA where there is one."""
    devices: Positive = 1
    """Processes per node."""
    num_nodes: Positive = 1
    """Machines."""
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    """auto: bf16-mixed where this machine is faster in it, else 32-true; what was taken, and why, is printed."""
    deterministic: bool = False
    """Only deterministic kernels (CUDA; on a CPU runs are bit-equal anyway)."""
    log_every: Positive = 10
    """Iterations between two lines of metrics."""
    save_every: NonNegative = 500
    """Iterations between two checkpoints; 0: at the end only."""
    keep_checkpoints: Positive = 2
    """The newest so many stay."""
    tensorboard: bool = True
    """Whether TensorBoard's event files are written beside metrics.jsonl."""
    report: Literal["full", "short"] = "full"
    """full: written anew after each evaluation; at the end the teacher is scored, latencies are measured, and the best
    and worst images drawn."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.evaluation is not None and self.dataset is None:
            raise ValueError("evaluation needs dataset")
        if self.num_classes is None and self.unnamed:
            raise ValueError("num_classes is needed where no dataset says it")
        if self.cuts and not self.data_free:
            raise ValueError("student.source cut needs the images of a generator: use method dfad")
        if self.num_classes == 1:
            raise ValueError(
                "num_classes is 1, and a softmax over one class is constant: for a mask by one channel set it to 2, "
                "background and object, and output: sigmoid in the network's section"
            )

    @property
    def unnamed(self) -> bool:
        """Whether no data set says which classes there are."""
        return self.dataset is None or getattr(self.dataset.options, "classes", None) == ()

    @property
    def cuts(self) -> bool:
        """Whether the student is to be cut out of the teacher."""
        return self.student is not None and self.student.name == "cut"

    @property
    def trained_role(self) -> Literal["teacher", "student"]:
        """Which of the two networks this experiment trains."""
        return "teacher" if self.student is None else "student"


@options
class _Distillation(Config):
    teacher: Network = field()  # without the default that it has in Config: these are needed
    student: Student = field()


@options
class RealImages(Config):
    """What trains on real images."""

    dataset: DatasetSection = field()
    training_data: TrainingData = TrainingData()
    """Which real images are trained on, and how they are changed."""


@options
class _WithoutData(_Distillation):
    data_free: ClassVar[bool] = True

    transfer_images: FileName | None = None
    """A folder of unlabelled images, mixed in: as many student steps on them as on remembered ones, at least one. The
    run is not data-free then."""
    preview_every: NonNegative = 0
    """Iterations between two pictures of generated images; 0: at the end only."""


@options
class SupervisedConfig(Supervised, RealImages):
    """method: supervised."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.teacher is None) == (self.student is None):
            raise ValueError("method supervised trains one network: give either teacher or student")


@options
class WithDataConfig(WithData, RealImages, _Distillation):
    """method: distill_with_data."""


@options
class GameConfig(Game, _WithoutData):
    """method: dfad."""

    generator: GeneratorSection
    """What makes the images."""


@options
class NoiseConfig(DataFree, _WithoutData):
    """method: random_noise."""


METHODS: dict[str, type[Config]] = {
    "supervised": SupervisedConfig,
    "distill_with_data": WithDataConfig,
    "dfad": GameConfig,
    "random_noise": NoiseConfig,
}
"""What each method takes."""
