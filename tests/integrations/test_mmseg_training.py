"""The data-free game in MMSegmentation's runner: the same steps, no leaks, resuming, several processes."""

from __future__ import annotations

import copy
import json

import pytest
import torch
import torch.multiprocessing as mp

from dfad_seg.common.errors import InputError

GAME = """
_base_ = "{tiny}"
custom_imports = dict(imports=["dfad_seg.integrations.mmseg"], allow_failed_imports=False)
custom_hooks = [dict(type="ExportStudentHook")]
train_dataloader = dict(_delete_=True, batch_size=1, num_workers=0, sampler=None, dataset=dict(type="IterationNumbers"))
model = dict(
    _delete_=True,
    type="DataFreeDistiller",
    teacher=dict(config="{tiny}", checkpoint="{checkpoint}"),
    student={{{{_base_.model}}}},
    generator=dict(type="DCGANGenerator", latent_dim=8, width=4),
    priors=dict(batch_norm_prior=0.1),
    batch_size=3, image_size=(64, 64), student_steps=2, seed=5,
)
optim_wrapper = dict(
    _delete_=True,
    constructor="PlayersConstructor",
    student=dict(optimizer=dict(type="SGD", lr=0.05, momentum=0.9), clip_grad=dict(max_norm=1.0)),
    generator=dict(optimizer=dict(type="Adam", lr=1e-3)),
)
train_cfg = dict(type="IterBasedTrainLoop", max_iters=4, val_interval=4)
"""


@pytest.fixture
def game(tmp_path, tiny_config, trained):
    path = tmp_path / "game.py"
    path.write_text(GAME.format(tiny=tiny_config, checkpoint=trained))
    return path


def plain_norms(config):
    """The tiny student of the config with ordinary BatchNorm, which can train on a CPU without their runner."""
    model = config.model.to_dict()
    model["student"] = json.loads(json.dumps(model["student"]).replace("SyncBN", "BN"))
    model["student"]["pretrained"] = None
    return model


def build(config_path):
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    import dfad_seg.integrations.mmseg  # noqa: F401

    config = Config.fromfile(str(config_path))
    init_default_scope("mmseg")
    torch.manual_seed(0)
    model = MODELS.build(plain_norms(config))
    return model.train(), config


def players(model, config):
    from mmengine.optim import build_optim_wrapper

    return build_optim_wrapper(model, config.optim_wrapper)


def test_an_iteration_is_our_two_steps(game):
    """The same numbers, bit by bit, as `student_step` and `generator_step` with plain optimisers."""
    from dfad_seg.distill import generator_step, student_step
    from dfad_seg.distill.seeds import iteration_rng

    model, config = build(game)
    student, generator, teacher = copy.deepcopy((model.student, model.generator, model.teacher))
    objective = copy.deepcopy(model.objective)
    objective.priors = {}
    model.objective.priors = {}
    wrappers = players(model, config)
    logged = [model.train_step([n], wrappers) for n in range(2)]

    sgd = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9)
    adam = torch.optim.Adam(generator.parameters(), lr=1e-3)
    losses = []
    for n in range(2):
        rng = iteration_rng(5, 0, n, "cpu")
        for _ in range(2):
            with torch.no_grad():
                images = generator(generator.sample(3, (64, 64), rng))
            shown = student_step(student=student, teacher=teacher, images=images, optimizer=sgd,
                                 loss_fn=model.student_loss, clip_norm=1.0)  # fmt: skip
            losses.append(shown["loss"])
        latents = generator.sample(3, (64, 64), rng)
        generator_step(generator=generator, student=student, teacher=teacher, latents=latents, optimizer=adam,
                       objective=objective)  # fmt: skip
    for ours, theirs in ((student, model.student), (generator, model.generator)):
        for name, value in ours.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[name]), name
    assert logged[1]["loss"].item() == pytest.approx((losses[2] + losses[3]).item() / 2, rel=1e-6)
    assert set(logged[0]) >= {"loss", "agreement", "class_entropy", "generator_loss", "generator_discrepancy"}


def test_no_gradient_leaks_between_the_players(game, monkeypatch):
    from dfad_seg.integrations.mmseg import distiller

    model, config = build(game)
    wrappers = players(model, config)
    teacher = copy.deepcopy(model.teacher.state_dict())
    seen = []
    original = distiller.generator_step

    def watched(**arguments):
        before = [(p.clone(), p.grad.clone()) for p in model.student.parameters()]
        result = original(**arguments)
        after = list(model.student.parameters())
        same = (torch.equal(p, q) and torch.equal(g, q.grad) for (p, g), q in zip(before, after, strict=True))
        seen.append(all(same))
        return result

    monkeypatch.setattr(distiller, "generator_step", watched)
    generator = [p.clone() for p in model.generator.parameters()]
    model.train_step([0], wrappers)
    assert seen == [True]
    assert any(not torch.equal(p, q) for p, q in zip(generator, model.generator.parameters(), strict=True))
    assert all(p.grad is None for p in model.teacher.parameters()) and not model.teacher.training
    assert all(torch.equal(value, model.teacher.state_dict()[name]) for name, value in teacher.items())
    assert not any(key.startswith("teacher") for key in model.state_dict())


def test_their_runner_trains_resumes_validates_and_exports(game, tool, tmp_path, folders, helpers):
    from mmseg.apis import init_model

    fixed = ["--cfg-options", "model.student.pretrained=None"]
    tool("train", game, "--work-dir", tmp_path / "whole", *fixed)
    (tmp_path / "parts").mkdir()
    tool("train", game, "--work-dir", tmp_path / "parts", *fixed, "train_cfg.max_iters=2")
    first = torch.load(tmp_path / "parts" / "iter_2.pth", weights_only=False)
    tool("train", game, "--work-dir", tmp_path / "parts", "--resume", *fixed)
    whole, resumed = (torch.load(tmp_path / run / "iter_4.pth", weights_only=False) for run in ("whole", "parts"))
    assert whole["state_dict"].keys() == resumed["state_dict"].keys()
    assert all(torch.equal(value, resumed["state_dict"][key]) for key, value in whole["state_dict"].items())
    assert any(not torch.equal(value, first["state_dict"][key]) for key, value in whole["state_dict"].items())

    config = tmp_path / "whole" / "student" / "student.py"
    text = config.read_text()
    assert "DataFree" not in text and "dfad_seg.integrations" not in text and "IterationNumbers" not in text
    tool("test", config, config.with_suffix(".pth"), "--work-dir", tmp_path / "test")
    lines = [json.loads(line) for file in (tmp_path / "whole").glob("*/vis_data/scalars.json") for line in file.open()]
    validated = [line for line in lines if "mIoU" in line]
    assert helpers.printed(tmp_path / "test")["mIoU"] == round(validated[-1]["mIoU"], 2)
    assert {"loss", "agreement", "generator_loss", "student.lr", "generator.lr"} <= set(lines[0])
    student = init_model(str(config), str(config.with_suffix(".pth")), device="cpu").state_dict()
    trained = whole["state_dict"]
    assert all(torch.equal(value, trained[f"student.network.model.{key}"]) for key, value in student.items())


def rank(number, game, folder, kind):
    import mmengine.dist
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2)
    from mmengine.model import MMDistributedDataParallel

    from dfad_seg.integrations.mmseg import DataFreeDistributed

    torch.set_num_threads(1)
    model, config = build(game)
    if number:  # the wrapper must give every process the same weights
        with torch.no_grad():
            model.student.network.model.decode_head.conv_seg.weight.zero_()
    wrapped = (DataFreeDistributed if kind == "ours" else MMDistributedDataParallel)(module=model)
    wrappers = players(model, config)
    assert mmengine.dist.get_world_size() == 2
    try:
        for n in range(2):
            wrapped.train_step([n], wrappers)
        torch.save(model.state_dict(), f"{folder}/{number}.pt")
    except InputError as error:
        with open(f"{folder}/{number}.txt", "w") as file:
            file.write(str(error))
    dist.destroy_process_group()


def test_two_processes_average_their_gradients(game, tmp_path, monkeypatch):
    mp.spawn(rank, (game, tmp_path, "ours"), nprocs=2)
    first, second = (torch.load(tmp_path / f"{number}.pt") for number in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[key]) for key, value in first.items() if value.is_floating_point())

    # By hand in one process: the same iterations with each rank's latents, gradients and statistics averaged.
    from dfad_seg.integrations.mmseg import distiller

    ranks = [build(game) for _ in range(2)]
    wrappers = [players(model, config) for model, config in ranks]
    expected = in_lockstep(distiller, [model for model, _ in ranks], wrappers, monkeypatch)
    for key, value in first.items():
        if value.is_floating_point():
            assert torch.allclose(value, expected[key], rtol=1e-4, atol=1e-6), key


def in_lockstep(distiller, models, wrappers, monkeypatch):
    """Two models in two threads that meet wherever tensors are averaged; no torch.distributed."""
    import threading

    meeting, shared, number = threading.Barrier(2), [None, None], threading.local()

    def average(tensors):
        shared[number.value] = [tensor.clone() for tensor in tensors]
        meeting.wait()
        means = [(a + b) / 2 for a, b in zip(*shared, strict=True)]
        meeting.wait()
        for tensor, mean in zip(tensors, means, strict=True):
            tensor.data.copy_(mean)

    turn = threading.Lock()

    def seeded(*arguments):
        # torch's global generator belongs to both threads; nothing here draws from it.
        with turn:
            return original(*arguments)

    original = distiller.iteration_rng
    monkeypatch.setattr(distiller, "iteration_rng", seeded)
    monkeypatch.setattr(distiller, "_average", average)
    monkeypatch.setattr(distiller, "get_world_size", lambda: 2)
    monkeypatch.setattr(distiller, "get_rank", lambda: number.value)

    failures = []

    def play(i):
        number.value = i
        try:
            for n in range(2):
                models[i].train_step([n], wrappers[i])
        except Exception as error:
            failures.append(error)
            meeting.abort()

    threads = [threading.Thread(target=play, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    return models[0].state_dict()


def test_the_default_wrapper_says_what_is_needed(game, tmp_path):
    mp.spawn(rank, (game, tmp_path, "default"), nprocs=2)
    assert "model_wrapper_cfg = dict(type='DataFreeDistributed')" in (tmp_path / "0.txt").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["teacher"].pop("checkpoint"), "it has no checkpoint"),
        (lambda m: m["generator"].update(type="NoGenerator"), "unknown generator.type 'NoGenerator'"),
        (lambda m: m.update(priors={"batch_nrm_prior": 1.0}), "batch_norm_prior"),
    ],
)
def test_bad_configs(game, change, message):
    from mmengine.config import Config
    from mmseg.registry import MODELS

    import dfad_seg.integrations.mmseg  # noqa: F401

    model = plain_norms(Config.fromfile(str(game)))
    change(model)
    with pytest.raises(InputError, match=message):
        MODELS.build(model)


def test_class_shares_by_moments_reach_layouts_and_checkpoints(game):
    text = game.read_text().replace('type="DCGANGenerator", latent_dim=8, width=4', 'type="LayoutGenerator", width=2, '
                                    'scales=1, recalled=0.5, class_frequencies="moments"')  # fmt: skip
    game.write_text(text)
    model, config = build(game)
    before = model.generator.class_frequencies.clone()
    model.train_step([0], players(model, config))
    after = model.generator.class_frequencies
    assert model.generator.tilt.any() and torch.isfinite(after).all() and not torch.equal(before, after)
    assert torch.equal(after, model.state_dict()["class_shares.shares"])


def test_logit_adjustment_reaches_both_players_and_checkpoints(game):
    text = game.read_text()
    plain, config = build(game)
    plain.train_step([0], players(plain, config))
    game.write_text(text.replace("student_steps=", "logit_adjustment=0.5, student_steps="))
    model, config = build(game)
    model.train_step([0], players(model, config))
    assert model.objective.adjustment is model.adjustment
    assert model.state_dict()["adjustment.batches"] == 2 and "adjustment.shares" not in plain.state_dict()
    both = zip(plain.student.parameters(), model.student.parameters(), strict=True)
    assert any(not torch.equal(p, q) for p, q in both)


def test_one_optimiser_is_not_enough(game):
    from mmengine.optim import OptimWrapper, build_optim_wrapper

    model, config = build(game)
    with pytest.raises(InputError, match="needs two optimisers"):
        model.train_step([0], OptimWrapper(torch.optim.SGD(model.student.parameters(), lr=0.1)))
    with pytest.raises(InputError, match="student and generator, and nothing else"):
        build_optim_wrapper(model, dict(constructor="PlayersConstructor", student=config.optim_wrapper.student))
    wrong = copy.deepcopy(config.optim_wrapper)
    wrong.student.accumulative_counts = 2
    with pytest.raises(InputError, match="set accumulate of the model"):
        model.train_step([0], build_optim_wrapper(model, wrong))


def test_the_shipped_configs_are_whole(helpers, monkeypatch):
    from mmengine.config import Config
    from mmseg.registry import MODELS

    monkeypatch.chdir(helpers.configs.parents[1])
    names = [path.name for path in helpers.configs.glob("*.py")]
    assert len(names) == 3
    for name in names:
        config = Config.fromfile(str(helpers.configs / name))
        student = config.model.get("student", config.model)
        assert MODELS.build(student).num_classes == len(config.metainfo.classes) == 11
