"""Format `onnx`: normalisation, padding and cropping inside the graph; checked in ONNX Runtime."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dfad_seg.common.errors import InputError, explained, quiet
from dfad_seg.exporting.base import Made, Program, advice, as_properties, compare, require
from dfad_seg.exporting.program import exported_program
from dfad_seg.segmentors import Segmentor

OPSET = 18
"""The newest that ONNX Runtime's quantiser, TensorRT and OpenVINO all take; its Resize is antialias-aware."""


def export_onnx(options: Program, *, segmentor: Segmentor, described: dict[str, Any]) -> Made:
    """One .onnx file: input `images`, output `logits`, metadata in its `metadata_props`."""
    require("onnx", "onnxscript", "onnxruntime")
    import onnx

    program = exported_program(segmentor, options, guarded=False)
    # An operation may be one that ONNX does not have, at this size or at any.
    with explained("torch.onnx cannot translate this network", advice(options)), quiet():
        translated = torch.onnx.export(
            program,
            dynamo=True,
            optimize=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["logits"],
            verbose=False,
        )
        assert translated is not None
        model = translated.model_proto
    if options.dynamic:
        for value in (*model.graph.input, *model.graph.output):
            for place, name in ((0, "batch"), (2, "height"), (3, "width")):
                value.type.tensor_type.shape.dim[place].dim_param = name
        # Inner shapes speak of the exporter's own symbols; every runtime infers them anew.
        del model.graph.value_info[:]
    nodes = [node for graph in (model.graph, *model.functions) for node in graph.node]
    for item in (model.graph, *model.graph.value_info, *nodes):
        del item.metadata_props[:]  # where in whose Python files each operation stands
    onnx.helper.set_model_props(model, as_properties(described))
    content = model.SerializeToString()
    checks = compare("ONNX", segmentor, OnnxNetwork(content), options)
    note = "any batch and image size" if options.dynamic else "one image of this size at a time"
    return Made(content, checks, (note,))


class OnnxNetwork(nn.Module):
    """An .onnx file of this program, by its path or content, in ONNX Runtime on the CPU, called like a segmentor."""

    def __init__(self, file: str | Path | bytes) -> None:
        super().__init__()
        require("onnxruntime")
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = torch.get_num_threads()
        settings.log_severity_level = 4  # what goes wrong is raised
        settings.add_session_config_entry("session.set_denormal_as_zero", "1")
        source = file if isinstance(file, bytes) else os.fspath(file)
        self.session = onnxruntime.InferenceSession(source, settings, providers=["CPUExecutionProvider"])

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, K, H, W) in [0, 1] to logits (N, C, H, W), or (N, 1, H, W) of a mask, on the CPU."""
        wanted = self.session.get_inputs()[0].shape
        if any(isinstance(side, int) and side != got for side, got in zip(wanted, images.shape, strict=True)):
            shape = ", ".join(map(str, wanted))
            raise InputError(
                f"this ONNX file takes images of shape ({shape}), and got {tuple(images.shape)}. Export it with"
                " --dynamic for any size, or with --size for another."
            )
        (logits,) = self.session.run(["logits"], {"images": images.contiguous().numpy()})
        return torch.from_numpy(logits)
