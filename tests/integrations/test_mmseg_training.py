"""The data-free game in MMSegmentation's runner: the one game to the last bit, its logs, checkpoints and stops."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch

from dfad_seg.common.errors import InputError
from dfad_seg.config import parse_config
from dfad_seg.recipes import train
from dfad_seg.segmentors import load_segmentor

pytest.importorskip("mmseg.models", reason="MMSegmentation is not installed; make test-mmseg runs these tests")

from mmengine.config import Config  # noqa: E402
from mmengine.hooks import Hook  # noqa: E402
from mmengine.registry import init_default_scope  # noqa: E402
from mmseg.registry import HOOKS, MODELS  # noqa: E402

import dfad_seg.integrations.mmseg  # noqa: E402, F401

RUNNER = """
_base_ = "{tiny}"
custom_imports = dict(imports=["dfad_seg.integrations.mmseg"], allow_failed_imports=False)
custom_hooks = [dict(type="ExportStudentHook")]
train_dataloader = dict(_delete_=True)
optim_wrapper = dict(_delete_=True, constructor="GameOptimizers")
param_scheduler = None
model = dict(_delete_=True, type="DataFreeStudent", game={game})
train_cfg = dict(_delete_=True, type="DataFreeLoop", val_interval=2)
"""


def keys_of(tiny_config, trained, **changes):
    """A small game with every part of the recommended recipes."""
    return {
        "num_classes": 4,
        "teacher": {"source": "mmseg", "config": str(tiny_config), "checkpoint": str(trained)},
        "student": {"source": "mmseg", "config": str(tiny_config)},
        "generator": {"type": "layout", "width": 2, "scales": 1, "class_frequencies": "moments", "recalled": 0.5},
        "iterations": 4,
        "batch_size": 3,
        "image_size": [64, 64],
        "student_steps": 2,
        "student_loss": {"kl": 1.0, "mae": 0.2},
        "temperature": 2.0,
        "adversarial_loss": {"jensen_shannon": 1.0},
        "priors": {"batch_norm_prior": 0.1, "layout_consistency": 1.0},
        "replay": {"size": 6, "steps": 1, "final_steps": 2, "logits": "kept"},
        "logit_adjustment": 0.5,
        "student_optimizer": {"type": "sgd", "lr": 0.05},
        "schedule": {"type": "cosine"},
        "clip_norm": 1.0,
        "ema_decay": 0.9,
        "seed": 5,
    } | changes


@pytest.fixture
def keys(tiny_config, trained):
    return keys_of(tiny_config, trained)


@pytest.fixture
def runner(tmp_path, tiny_config, keys):
    path = tmp_path / "game.py"
    path.write_text(RUNNER.format(tiny=tiny_config, game=keys))
    return path


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(value, b[key]) for key, value in a.items())


def test_the_runner_plays_the_one_game(runner, keys, tool, tmp_path, helpers):
    """Bit by bit what `dfad-seg train` makes of the same keys, though it validates on the way."""
    from mmseg.apis import init_model

    tool("train", runner, "--work-dir", tmp_path / "theirs")
    ours = load_segmentor(train(parse_config({"method": "dfad", **keys}), tmp_path / "ours")).network.state_dict()
    config = tmp_path / "theirs" / "student" / "student.py"
    student = init_model(str(config), str(config.with_suffix(".pth")), device="cpu")
    assert equal({f"model.{key}": value for key, value in student.state_dict().items()}, ours)
    text = config.read_text()
    assert "DataFree" not in text and "dfad_seg.integrations" not in text
    assert student.dataset_meta["classes"] == helpers.classes

    lines = [json.loads(line) for file in (tmp_path / "theirs").glob("*/vis_data/scalars.json") for line in file.open()]
    trained = [line for line in lines if "student_loss" in line]
    assert [line["step"] for line in trained] == [1, 2, 3, 4]
    own = [json.loads(line) for line in (tmp_path / "ours" / "metrics.jsonl").open()]
    assert {"generator_loss", "replay_agreement", "student_lr", "time"} <= set(trained[-1])
    assert any("train/student_loss" in line for line in own)
    # What is validated is the student that is kept, and checkpoints hold it for their tools.
    tool("test", config, config.with_suffix(".pth"), "--work-dir", tmp_path / "test")
    validated = [line["mIoU"] for line in lines if "mIoU" in line]
    assert len(validated) == 2 and helpers.printed(tmp_path / "test")["mIoU"] == round(validated[-1], 2)
    saved = torch.load(tmp_path / "theirs" / "iter_4.pth", weights_only=False)["state_dict"]
    assert equal({key.removeprefix("segmentor.network."): value for key, value in saved.items()}, ours)
    assert not any("teacher" in key for key in saved)
    assert list((tmp_path / "theirs").glob("*/vis_data/vis_image/generated_4.png"))


@HOOKS.register_module()
class StopAt(Hook):
    def __init__(self, iteration, number):
        self.iteration, self.number = iteration, number

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if batch_idx + 1 == self.iteration:
            os.kill(os.getpid(), self.number)


def states(run):
    content = torch.load(run / "iter_4.pth", weights_only=False)
    game = content["dfad_seg"]
    return {
        **content["state_dict"],
        **{f"{n}.{k}": v for n, state in game["networks"].items() for k, v in state.items()},
    }


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_goes_on_to_the_same_bits(runner, tool, tmp_path, number):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    tool("train", runner, "--work-dir", whole)
    stopping = tmp_path / "stopping.py"
    stopping.write_text(
        f"_base_ = 'game.py'\ncustom_hooks = [dict(type='StopAt', iteration=3, number={int(number)})]\n"
    )
    with pytest.raises(SystemExit) as stopped:
        tool("train", stopping, "--work-dir", parts)
    assert stopped.value.code == 128 + number
    assert (parts / "last_checkpoint").read_text() == str(parts / "iter_3.pth")
    tool("train", runner, "--work-dir", parts, "--resume")
    assert equal(states(whole), states(parts))
    exported = [torch.load(run / "student" / "student.pth")["state_dict"] for run in (whole, parts)]
    assert equal(*exported)


RANK = """
import sys, torch.distributed
from mmengine.config import Config
from mmengine.runner import Runner
torch.distributed.init_process_group("gloo")  # which their launcher does for GPUs alone
config = Config.fromfile(sys.argv[1])
config.work_dir = sys.argv[2]
runner = Runner.from_cfg(config)
if sys.argv[3] == str(torch.distributed.get_rank()):
    import dfad_seg.integrations.mmseg.loop as loop
    from dfad_seg import InputError
    def fails(*_, **__): raise InputError("one image is bad")
    loop.distil = fails
runner.train()
"""


def test_two_processes_train_one_student(tmp_path, tiny_config, trained):
    keys = keys_of(tiny_config, trained, iterations=2)
    config, script = tmp_path / "game.py", tmp_path / "rank.py"
    config.write_text(RUNNER.format(tiny=tiny_config, game=keys))
    script.write_text(RANK)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", script, config]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    how = {"capture_output": True, "text": True, "env": environment, "timeout": 300}
    done = subprocess.run([*map(str, command), str(tmp_path / "run"), "none"], **how)
    assert done.returncode == 0, done.stderr[-3000:]
    failed = subprocess.run([*map(str, command), str(tmp_path / "failed"), "1"], **how)
    # The rank's own traceback, and one of their launcher.
    assert [failed.stderr.count(text) for text in ("Error: one image is bad", "Traceback")] == [1, 2]
    two = torch.load(tmp_path / "run" / "student" / "student.pth")["state_dict"]
    alone = train(parse_config({"method": "dfad", **keys}), tmp_path / "alone")
    one = {key.removeprefix("model."): value for key, value in load_segmentor(alone).network.state_dict().items()}
    # Twice the images: another student, though not far away.
    assert two.keys() == one.keys() and not equal(two, one)


WRONG = [
    ({"iterations": 0, "btach_size": 3}, r"iterations(.|\n)*btach_size: unknown key. Did you mean 'batch_size'"),
    ({"teacher": {"source": "mmseg", "config": "TINY"}}, "it has no checkpoint"),
    ({"priors": {"batch_nrm_prior": 1.0}}, "batch_norm_prior"),
    ({"log_every": 5}, "log_every is not used.*default_hooks.logger.interval"),
    ({"dataset": {"type": "camvid", "root": "x"}}, "dataset is not used.*val_dataloader"),
    ({"method": "random_noise"}, "method random_noise does not use|method is random_noise"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_bad_games(keys, tiny_config, change, message):
    init_default_scope("mmseg")
    game = json.loads(json.dumps(keys | change).replace("TINY", str(tiny_config)))
    with pytest.raises(InputError, match=message):
        MODELS.build({"type": "DataFreeStudent", "game": game})


def test_other_parts_of_the_runner_are_refused(runner, tiny_config, tool, tmp_path):
    with pytest.raises(InputError, match="takes nothing else: the optimisers are the game's"):
        tool("train", runner, "--work-dir", tmp_path / "a", "--cfg-options", "optim_wrapper.optimizer.lr=1")
    other = tmp_path / "other.py"
    other.write_text(f"_base_ = '{tiny_config}'\ncustom_imports = dict(imports=['dfad_seg.integrations.mmseg'])\n"
                     "train_cfg = dict(_delete_=True, type='DataFreeLoop')\n"
                     "model = dict(pretrained=None)\n")  # fmt: skip
    with pytest.raises(InputError, match="needs model = dict"):
        tool("train", other, "--work-dir", tmp_path / "b")


def test_the_shipped_configs_are_whole(helpers, monkeypatch):
    monkeypatch.chdir(helpers.configs.parents[1])
    names = sorted(path.name for path in helpers.configs.glob("*.py"))
    assert len(names) == 3
    for name in names:
        config = Config.fromfile(str(helpers.configs / name))
        if config.model.type == "DataFreeStudent":
            from dfad_seg.integrations.mmseg.student import game_config

            assert game_config(config.model.game).num_classes == 11
            assert config.train_dataloader == {} and config.train_cfg.type == "DataFreeLoop"
        else:
            assert MODELS.build(config.model).num_classes == len(config.metainfo.classes) == 11
