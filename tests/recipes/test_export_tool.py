"""The command export on a run: files, figures, and images from the run's own generator."""

import json
import re

import numpy as np
import onnxruntime
import pytest
import torch
from shared import call_tool

from dfad_seg import evaluate, load_config, load_segmentor
from dfad_seg.common.reading import file_hash
from dfad_seg.recipes.export import generated_images, load_generator


@pytest.mark.slow
def test_onnx_int8_scores_and_latency(dfad_run, tmp_path, capsys):
    out = tmp_path / "deploy" / "s.onnx"
    arguments = ("--no-dynamic", "--size", 32, 48, "--int8", "--calibration-images", 12, "--split", "test")
    assert call_tool("export", dfad_run, "--format", "onnx", "--out", out, *arguments) == 0
    printed = capsys.readouterr().out
    assert sorted(p.name for p in out.parent.iterdir()) == ["s.onnx", "s_int8.onnx"]
    metadata = onnxruntime.InferenceSession(str(out)).get_modelmeta().custom_metadata_map
    assert json.loads(metadata["provenance"])["real_images_used_for_training"] is False
    assert metadata["source_sha256"] == file_hash(dfad_run / "student.pt")
    assert json.loads(metadata["classes"])[0] == "sky" and len(json.loads(metadata["palette"])) == 11
    # The scores are those of the evaluation itself.
    truth = evaluate(load_config(dfad_run / "config.yaml"), load_segmentor(dfad_run / "student.pt"), split="test").mIoU
    scores = [float(value) for value in re.findall(r"mIoU on test: ([\d.]+) %", printed)]
    assert len(scores) == 3 and sum(abs(score - 100 * truth) < 0.1 for score in scores) >= 2  # 8 bits differ
    assert len(re.findall(r"one image of 32x48 on .*: [\d.]+ ms", printed)) == 3


def test_the_calibration_images_are_the_generators(dfad_run):
    network = load_segmentor(dfad_run / "student.pt")
    config, generator = load_generator(dfad_run, network)
    state = torch.load(dfad_run / "checkpoints" / "iteration_00000003.pt", weights_only=True)["networks"]["generator"]
    assert all(torch.equal(value, state[key]) for key, value in generator.state_dict().items())
    first, again = (list(generated_images(dfad_run, 11, network=network)) for _ in range(2))
    assert [len(batch) for batch in first] == [8, 3] and all(map(torch.equal, first, again))
    assert first[0].shape[1:] == (3, *config.image_size)
    assert 0 <= min(b.min() for b in first) and max(b.max() for b in first) <= 1
    assert not np.array_equal(first[0][0], first[0][1])
