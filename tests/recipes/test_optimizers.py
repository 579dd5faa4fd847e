"""Optimisers from config sections."""

import pytest
from conftest_pipeline import call_tool, write
from torch import nn

from dfad_seg.common.errors import InputError
from dfad_seg.config import OptimizerConfig
from dfad_seg.recipes.optimizers import build_optimizer


def network():
    return nn.ModuleDict({name: nn.Linear(2, 2) for name in ("encoder", "decoder", "head")})


def test_multipliers_by_part_of_a_name():
    module = network()
    module["head"].bias.requires_grad_(False)
    section = OptimizerConfig(type="adamw", lr=0.2, lr_multipliers={"encoder.weight": 0.0, "encoder": 0.1})
    groups = build_optimizer(section, module).param_groups
    assert [group["lr"] for group in groups] == pytest.approx([0.2, 0.0, 0.02])
    found = [[id(p) for p in group["params"]] for group in groups]
    expected = [
        [*module["decoder"].parameters(), module["head"].weight],
        [module["encoder"].weight],
        [module["encoder"].bias],
    ]
    assert found == [[id(p) for p in group] for group in expected]


def test_one_rate_for_all_is_one_group():
    section = OptimizerConfig(type="sgd", lr=0.2)
    assert [len(group["params"]) for group in build_optimizer(section, network()).param_groups] == [6]
    everything = OptimizerConfig(type="sgd", lr=0.2, lr_multipliers={"": 0.5})
    assert [group["lr"] for group in build_optimizer(everything, network()).param_groups] == [0.1]


def test_a_multiplier_of_nothing_is_refused_before_anything_is_written(world, tmp_path, capsys):
    with pytest.raises(InputError, match="no parameter's name has 'encodr' in it.*encoder.weight, encoder.bias"):
        build_optimizer(OptimizerConfig(type="sgd", lr=0.2, lr_multipliers={"encodr": 0.1}), network())
    for player in ("student", "generator"):
        values = world.configs["dfad"]
        key = f"{player}_optimizer"
        section = {"type": "adam", "lr": 1e-3, "lr_multipliers": {"nowhere": 0.1}}
        config = write(tmp_path / "config.yaml", values | {key: section})
        assert call_tool("train", config, "--work-dir", tmp_path / "run") == 2
        assert "'nowhere'" in capsys.readouterr().err and not (tmp_path / "run").exists()
