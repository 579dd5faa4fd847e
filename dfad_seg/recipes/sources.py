"""What can be scored: a network from a file or a run, or predictions that were stored before."""

from dataclasses import dataclass
from os.path import realpath
from pathlib import Path
from typing import Any

from dfad_seg.common.errors import TRUST_ADVICE, InputError, instead_of
from dfad_seg.common.labels import IGNORED
from dfad_seg.common.reading import file_hash
from dfad_seg.common.tensors import read_tensors
from dfad_seg.common.values import Chosen
from dfad_seg.config import Config, load_config
from dfad_seg.datasets import MetaInfo
from dfad_seg.evaluation import CocoResults, PredictionFolder, Stored
from dfad_seg.recipes.build import build_network, build_teacher, check_classes, meta_info
from dfad_seg.segmentors import WEIGHT_OPTIONS, Segmentor, count_parameters
from dfad_seg.segmentors.sources import spec_runs_code


@dataclass
class Source:
    """A network to score, or its stored label maps, from a path.

    `role` is that of the network in the config, where that decided how it was built.
    """

    path: Path
    model: Segmentor | Stored
    role: str | None = None

    def record(self) -> dict[str, Any]:
        """What results say about their origin."""
        if isinstance(self.model, Stored):
            return {"predictions": str(self.path)}
        weights = self.path / "model.safetensors" if self.path.is_dir() else self.path
        found = file_hash(weights) if weights.is_file() else None  # not of a name on a hub, or of many files
        file = {"checkpoint": str(self.path), "checkpoint_sha256": found}
        return ({"role": self.role} if self.role else {}) | file | {"parameters": count_parameters(self.model)}


def refuse_code(section: Chosen | None, role: str, *, trust: bool) -> None:
    """Raises InputError if building this section of a config runs code that it names, unless it is trusted."""
    if section is None or trust or section.name in ("saved", "cut"):
        return
    if spec_runs_code({"source": section.name, **section.values()}):
        raise InputError(
            f"the run's {role} is code (source {section.name}), and a run may be anybody's. {TRUST_ADVICE}"
        )


def open_source(
    config: Config, item: str | Path, *, role: str | None = None, trust: bool = False, own: bool = True
) -> Source:
    """A run directory, a network file, a folder of predictions, or a JSON file of COCO results.

    Args:
        config: says the classes and, for files of bare weights, the architecture.
        item: the path.
        role: `teacher` or `student`: the section of the config that the file belongs to. Without it, a file that
            knows its own architecture is built by that, the file of the config's teacher is the teacher, and another
            the network that the config trains.
        trust: the file, or the run, may name code.
        own: and so may the config, which is not one of a run that may be anybody's.

    Raises:
        InputError: nothing of the kind is there, or it does not fit the config's classes.
    """
    path = Path(item)
    is_run = path.is_dir() and (path / "config.yaml").is_file()
    of_weights = (path / "config.json").is_file()  # of save_pretrained
    if (path.is_dir() and not is_run and not of_weights) or path.suffix.lower() == ".json":
        return open_predictions(config, path)
    if is_run or (role is None and _spec_in(path) is not None):
        path = network_file(path)
        options = {"checkpoint": str(path), "trust": trust}
        return Source(path, build_network("saved", options, str(path), meta_info(config)))
    role = role or role_of(config, path)
    return Source(path, load_role(config, role, path, own=own or trust), role=role)


def role_of(config: Config, path: str | Path) -> str:
    """`teacher` for the file that the config's teacher names, and the role of the trained network for any other."""
    return "teacher" if realpath(path) == realpath(weights_of(config.teacher)) else config.trained_role


def weights_of(section: Chosen | None) -> Path:
    """The file, folder or name with the weights of a network of a config; an empty path where it names none."""
    values = {} if section is None else section.values()
    return Path(next((values[key] for key in ("checkpoint", "path", "pretrained") if values.get(key)), ""))


def teacher_of(config: Config, file: Path | None, trust: bool) -> Source:
    """What `teacher` stands for beside a run: the network that it was distilled from, as its config (`file`) says."""
    theirs = None if file is None else load_config(file)
    section = None if theirs is None else theirs.teacher
    if theirs is None or section is None:
        raise InputError("no run is named whose config has a teacher. Give the path of the teacher itself.")
    refuse_code(section, "teacher", trust=trust)
    return Source(weights_of(section), build_teacher(theirs, meta_info(config)), "teacher")


def open_predictions(config: Config, item: str | Path) -> Source:
    """A folder of index PNGs, or a JSON file of COCO results; errors as in `open_source`."""
    path, info = Path(item), meta_info(config)
    ids = info.ids()
    if path.is_dir():
        return Source(path, PredictionFolder(path, ids, info.palette))
    if path.suffix.lower() != ".json":
        raise InputError(f"{path} is neither a folder of PNGs nor a .json file of COCO results.{instead_of(path)}")
    background = info.classes.index("background") if "background" in info.classes else IGNORED
    return Source(path, CocoResults(path, ids, background=background))


def run_config(item: str | Path) -> Path | None:
    """The config of a run directory, or of the run that a network file lies in; None if there is none."""
    path = Path(item)
    candidate = (path if path.is_dir() else path.parent) / "config.yaml"
    return candidate if candidate.is_file() else None


def is_of_a_run(config: str | Path) -> bool:
    """Whether a config is a run's, and so may come from anybody: its folder, or the file in there."""
    path = Path(config)
    return path.is_dir() or (path.parent / "provenance.json").exists() or (path.parent / "summary.json").exists()


def network_file(item: str | Path) -> Path:
    """The trained network of a run directory, which an unfinished one does not have; or the file itself."""
    path = Path(item)
    file = next((path / name for name in ("student.pt", "teacher.pt") if (path / name).is_file()), None)
    if path.is_dir() and file is None:
        raise InputError(f"{path} has no student.pt or teacher.pt: it is no run directory, or has not finished.")
    return file or path


def _spec_in(path: Path) -> dict[str, Any] | None:
    """The content of a file that knows its own architecture."""
    if path.suffix == ".safetensors" or not path.is_file():
        return None
    try:
        content = read_tensors(path)
    except InputError:
        return None  # whoever loads it says what is wrong
    return content if isinstance(content, dict) and isinstance(content.get("spec"), dict) else None


def load_role(config: Config, role: str, checkpoint: str | Path, *, own: bool = True) -> Segmentor:
    """The config's teacher or student (`role`) with the weights of `checkpoint`, which must fit it strictly.

    `own`: the config is one's own, and may name code.
    """
    info = meta_info(config)
    section: Chosen | None = getattr(config, role)
    if section is None:
        raise InputError(f"the config has no {role}. Choose the other one with --role.")
    if section.name in ("saved", "cut"):  # the file knows the network
        return build_network("saved", {"checkpoint": str(checkpoint)}, role, info)
    refuse_code(section, role, trust=own)
    options = {k: v for k, v in section.values().items() if k not in WEIGHT_OPTIONS}
    key = "path" if section.name in ("torchscript", "torch_export") else "checkpoint"
    key = "pretrained" if Path(checkpoint).is_dir() else key
    options[key] = str(checkpoint)
    network = build_network(section.name, options, role, info)
    if key == "checkpoint":
        _check_against_file(network, role, checkpoint, info)
    return network


def _check_against_file(network: Segmentor, role: str, checkpoint: str | Path, info: MetaInfo) -> None:
    """What a file of ours says of its normalisation and classes must agree with the config: weights alone would fit."""
    content = _spec_in(Path(checkpoint))
    if content is None:
        return
    for name, ours in network.preprocessing().items():
        theirs = content["spec"].get(name, ours)
        if theirs != ours:
            raise InputError(
                f"{role}: {checkpoint} was trained with {name} {theirs}, and the config has {ours}. "
                f"Set {role}.{name} to the file's value."
            )
    if content.get("classes") is not None:
        network.classes = tuple(content["classes"])
        check_classes(network, str(checkpoint), info)
