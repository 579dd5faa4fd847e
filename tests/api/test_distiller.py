"""The front door: DataFreeDistiller, evaluate_miou and export, and the notebook that shows them."""

import base64
import io
import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dfad_seg import DataFreeDistiller, Segmentor, build_dataset, build_generator, evaluate_miou, export
from dfad_seg.common.errors import InputError
from dfad_seg.recipes import assemble, train_in_process

REPOSITORY = Path(__file__).resolve().parents[2]
NOTEBOOK = REPOSITORY / "examples" / "distil_in_a_notebook.ipynb"
SETTINGS = {"image_size": (16, 24), "batch_size": 2, "student_steps": 2, "device": "cpu", "seed": 3}


def network(seed, width=4, num_classes=3):
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.Conv2d(width, num_classes, 1))
    return Segmentor(body, num_classes=num_classes, classes=("a", "b", "c")[:num_classes])


def weights(module):
    return torch.cat([value.flatten().float() for value in module.network_state_dict().values()])


def test_fit_is_the_loop_of_the_config(tmp_path):
    """The same as assembling the experiment by hand: the class adds nothing of its own."""
    from dfad_seg.config import parse_config
    from dfad_seg.datasets import MetaInfo
    from dfad_seg.distill import Hooks
    from dfad_seg.distill.seeds import derived_seed
    from dfad_seg.segmentors import freeze

    game = DataFreeDistiller(network(0), network(1), {"type": "layout", "width": 4}, **SETTINGS)
    kept = game.fit(3, progress=False, log_every=1)
    values = {"method": "dfad", "teacher": {"source": "saved"}, "student": {"source": "saved"}, "num_classes": 3}
    config = parse_config(values | {"generator": {"type": "layout", "width": 4}, "iterations": 3} | SETTINGS)
    teacher, student = freeze(network(0)), network(1)
    torch.manual_seed(derived_seed(3, 0, 0, "initialisation"))
    info = MetaInfo(("a", "b", "c"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)))
    experiment = assemble(config, info, teacher=teacher, student=student)
    assert torch.equal(weights(kept), weights(train_in_process(experiment, Hooks())))
    assert [line["step"] for line in game.history] == [1, 2, 3] and "train/student_loss" in game.history[0]
    assert not torch.equal(weights(kept), weights(network(1))) and not kept.training
    assert game.teacher.is_frozen and torch.equal(weights(game.teacher), weights(network(0)))


def test_evaluations_go_into_the_history_and_may_be_numbers():
    game = DataFreeDistiller(network(0), network(1), {"type": "layout", "width": 4}, **SETTINGS)
    seen = []
    game.fit(4, evaluate=lambda net: seen.append(net.training) or 0.25, evaluate_every=2, progress=False)
    assert seen == [False, False]
    assert [line["evaluation/score"] for line in game.history if "evaluation/score" in line] == [0.25, 0.25]


def test_fit_goes_on_from_the_present_weights_with_a_generator_of_ones_own():
    generator = build_generator("layout", num_classes=3, image_size=(16, 24), width=4)
    before = [parameter.clone() for parameter in generator.parameters()]
    game = DataFreeDistiller(network(0), network(1), generator, **SETTINGS)
    first = weights(game.fit(2, progress=False))
    assert not torch.equal(first, weights(game.fit(2, progress=False)))
    assert any(not torch.equal(a, b) for a, b in zip(before, generator.parameters(), strict=True))


def test_the_notebook_form_is_a_picture_and_numbers():
    game = DataFreeDistiller(network(0), network(1), {"type": "layout", "width": 4}, **SETTINGS)
    assert "not trained yet" in game._repr_html_()
    with pytest.raises(InputError, match="call fit first"):
        game.picture()
    game.fit(2, progress=False)
    shown = game._repr_html_()
    assert "train/student_loss" in shown
    encoded = re.search(r'src="data:image/png;base64,([^"]+)"', shown).group(1)
    image = Image.open(io.BytesIO(base64.b64decode(encoded)))
    assert np.array_equal(np.asarray(image), np.asarray(game.picture())) and image.size[0] > 200


def test_what_a_user_can_mend():
    good = network(0)
    with pytest.raises(InputError, match="Wrap a plain network"):
        DataFreeDistiller(good.network, network(1))
    with pytest.raises(InputError, match="answers 3 classes and the student 2"):
        DataFreeDistiller(good, network(1, num_classes=2))
    with pytest.raises(InputError, match="Did you mean 'batch_size'"):
        DataFreeDistiller(good, network(1), batchsize=3)
    with pytest.raises(InputError, match="iterations cannot be set here"):
        DataFreeDistiller(good, network(1), iterations=3)
    with pytest.raises(InputError, match="iterations"):
        DataFreeDistiller(good, network(1), "layout").fit(0)


def test_evaluate_miou_on_a_data_set_is_that_on_its_batches(tiny_scenes):
    from dfad_seg import evaluation

    dataset = build_dataset("street_scenes", tiny_scenes, "test")
    model = Segmentor(nn.Conv2d(3, 11, 1), num_classes=11)
    samples = [dataset[i] for i in range(len(dataset))]
    batches = [{key: sample[key][None] for key in ("image", "mask")} for sample in samples]
    expected = evaluation.evaluate_miou(model, batches, num_classes=11)
    found = evaluate_miou(model, dataset, batch_size=2)
    assert found.mIoU == expected.mIoU and found.classes == dataset.metainfo.classes
    assert evaluate_miou(model, batches, num_classes=11).mIoU == expected.mIoU
    with pytest.raises(InputError, match="needs num_classes"):
        evaluate_miou(model, batches)
    with pytest.raises(InputError, match="Leave it out"):
        evaluate_miou(model, dataset, num_classes=3)


def test_the_notebook_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 4 and all(cell.get("outputs", []) == [] for cell in cells)
    namespace: dict = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for cell in code:
            exec(cell, namespace)
    printed = capsys.readouterr().out
    teacher, student = (
        float(re.search(rf"{name}: mIoU ([\d.]+)", printed).group(1)) for name in ("teacher", "student")
    )
    # Better than any network that answers one class everywhere: road covers half of the scenes.
    assert teacher > 0.15 and student > 0.08
    assert namespace["labels"].shape == (1, 32, 48)


def test_the_doctests():
    import doctest

    import dfad_seg.api.distiller
    import dfad_seg.api.scoring

    for module in (dfad_seg.api.distiller, dfad_seg.api.scoring):
        found = doctest.testmod(module)
        assert found.attempted > 0 and found.failed == 0


def test_export_is_a_function_also_once_its_layer_is_imported():
    import dfad_seg
    import dfad_seg.export

    assert callable(export) and dfad_seg.export is export
