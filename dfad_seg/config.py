"""One flat, validated config per experiment, composed of what the layers declare, from YAML and back.

All mistakes in a file are reported together, each with its key and, for a misspelt key, the nearest known one.
"""

import itertools
import textwrap
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml

from dfad_seg.common.errors import InputError, choose, nearest, shortened
from dfad_seg.common.reading import parse_yaml, read_yaml
from dfad_seg.common.values import Chosen, FileName, NonNegative, Positive, options, plain, section, validated
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


def load_config(path: str | Path, overrides: list[str] | None = None) -> Config:
    """Read a YAML config, apply `key=value` overrides (dots for nested keys), and validate.

    `path` may also be the name of a shipped config, see `find_config`.

    Raises:
        InputError: the file cannot be read, is not a mapping, or any key or value is wrong.
    """
    path = find_config(path)
    values = read_yaml(path, "the config")
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold a mapping of config keys, not {type(values).__name__}.")
    for override in overrides or []:
        apply_override(values, override)
    return parse_config(values, where=str(path))


def find_config(name: str | Path) -> Path:
    """The file of a config: `name` itself, or the shipped config that is meant by it, as in `camvid/dfad_cpu`.

    The shipped ones lie in the installed package, or beside the package in a source tree. A name that is neither is
    returned as it is.

    Raises:
        InputError: it is nearly the name of a shipped config.
    """
    if Path(name).exists():
        return Path(name)
    shipped = shipped_configs()
    short = str(name).removeprefix("configs/").removesuffix(".yaml")
    if short in shipped:
        return shipped[short]
    suggestion = nearest(short, shipped)
    if suggestion:
        raise InputError(f"there is no config file {name}, and no shipped config of this name.{suggestion}")
    return Path(name)


def shipped_configs() -> dict[str, Path]:
    """The configs that come with the package, by name: `camvid/dfad_cpu` and so on."""
    package = Path(__file__).resolve().parent
    folder = next((place for place in (package / "configs", package.parent / "configs") if place.is_dir()), None)
    if folder is None:
        return {}
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in sorted(folder.rglob("*.yaml"))}


def list_configs() -> None:
    """Print the shipped configs, with what each one's first comment says before its commands, which are indented."""
    for name, file in shipped_configs().items():
        lines = file.read_text(encoding="utf-8").splitlines()
        head = itertools.takewhile(lambda line: line[:3].strip() not in ("", "#"), lines)
        about = textwrap.fill(" ".join(line[2:] for line in head), 100)
        print(f"{name}\n{textwrap.indent(about, '    ')}")


def parse_config(values: Mapping[str, Any], *, where: str = "config") -> Config:
    """Validate a mapping of config keys, for the method that it names.

    Raises:
        InputError: lists every wrong key and value. A key that the method would ignore is wrong, too: a setting without
            effect is a mistake.
    """
    if "method" not in values:
        raise InputError(f"{where}: method: this key is needed. Known: {', '.join(METHODS)}.")
    kind = choose(METHODS, values["method"], "method")
    every = {name for each in METHODS.values() for name in each.__dataclass_fields__}
    ignored = sorted(values.keys() & every - kind.__dataclass_fields__.keys())
    try:
        config = validated(kind, {key: value for key, value in values.items() if key not in ignored}, where)
    except InputError as error:
        problems = str(error)
    else:
        if not ignored:
            return config
        problems = f"{where}: "
    if ignored:
        problems += f"\n  method {values['method']} does not use {', '.join(ignored)}; remove."
    raise InputError(problems)


def dump_config(config: Config) -> str:
    """The resolved config as YAML that `load_config` reads back to an equal one."""
    values = plain(config)
    return yaml.safe_dump({"method": values.pop("method"), **values}, sort_keys=False, allow_unicode=True)


def apply_override(values: dict[str, Any], override: str, option: str = "--cfg-options") -> None:
    """Set the `key=value` of a command line in `values`: dots for nested keys, the value in YAML.

    Raises:
        InputError: it has another form; the message names the command line's `option`.
    """
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise InputError(f"{option}: '{shortened(override)}' is not of the form key=value.")
    value = parse_yaml(text, f"{option}: the value in '{shortened(override)}'")
    *parents, last = key.split(".")
    node = values
    for parent in parents:
        child = node.get(parent)
        if child is None:
            child = node[parent] = {}
        if not isinstance(child, dict):
            raise InputError(f"{option}: '{key}': '{parent}' is a value, not a group of keys.")
        node = child
    node[last] = value
