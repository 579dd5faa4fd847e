"""The student of a data-free game as a model of MMSegmentation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.model import is_model_wrapper
from mmseg.registry import MODELS

from dfad_seg.common.errors import InputError
from dfad_seg.common.reading import read_yaml
from dfad_seg.config import GameConfig, find_config, parse_config
from dfad_seg.exporting.mmseg_model import DFADSegmentor, plain
from dfad_seg.recipes.build import build_experiment

_THEIRS = {
    "dataset": "val_dataloader and test_dataloader",
    "evaluation": "val_cfg, val_evaluator and train_cfg.val_interval",
    "device": "the runner's device",
    "devices": "its launcher",
    "num_nodes": "its launcher",
    "log_every": "default_hooks.logger.interval",
    "save_every": "default_hooks.checkpoint.interval",
    "keep_checkpoints": "default_hooks.checkpoint.max_keep_ckpts",
    "tensorboard": "vis_backends",
    "report": "their logs",
}
"""Keys of an experiment that the runner answers for, and what says so in its config."""


@MODELS.register_module()
class DataFreeStudent(DFADSegmentor):
    """The student of a game, which tests and validates like any other model; `experiment` holds the other players.

    Args:
        game: the keys of a YAML config of method dfad, or the path or name of one, of which the keys for data sets,
            devices, logs and checkpoints, which the runner answers for, are then left out.
        data_preprocessor, test_cfg, ignore_index: as in `DFADSegmentor`.

    Raises:
        InputError: whatever is wrong with the keys, the networks or their files.
    """

    def __init__(self, game: Mapping[str, Any] | str, **options: Any) -> None:
        config = game_config(game)
        experiment = build_experiment(config)
        super().__init__(segmentor=experiment.trained, **options)
        self.game = config
        self.experiment = experiment  # no module: the frozen teacher belongs into no checkpoint
        teacher = experiment.teacher
        if teacher is not None and self.segmentor.classes is None:
            self.segmentor.classes, self.segmentor.palette = teacher.classes, teacher.palette


def game_config(game: Mapping[str, Any] | str) -> GameConfig:
    """The validated config of a game in the runner."""
    if isinstance(game, str):
        values = read_yaml(Path(find_config(game)), "the game")
        if not isinstance(values, dict):
            raise InputError(f"{game} must hold a mapping of config keys, not {type(values).__name__}.")
        values = {key: value for key, value in values.items() if key not in _THEIRS}
    else:
        values = plain(game)
        for key in values:
            if key in _THEIRS:
                raise InputError(f"game: {key} is not used in MMSegmentation's runner: there it is {_THEIRS[key]}.")
    config = parse_config({"method": "dfad", **values}, where="game")
    if not isinstance(config, GameConfig):
        raise InputError(f"game: method is {config.method}, and the runner plays dfad alone. Use `dfad-seg train`.")
    return config


def student_of(runner: Any) -> DataFreeStudent:
    """The model of a runner."""
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    if not isinstance(model, DataFreeStudent):
        raise InputError(
            f"the DataFreeLoop needs model = dict(type='DataFreeStudent', game=...), not a {type(model).__name__}."
        )
    return model
