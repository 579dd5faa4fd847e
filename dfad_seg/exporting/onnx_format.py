"""Format `onnx`: normalisation, padding and cropping inside the graph; checked in ONNX Runtime. And the same in 8-bit
integers, by its static quantisation."""

import logging
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dfad_seg.common.errors import InputError, explained, quiet, require
from dfad_seg.common.files import check_target, write_whole
from dfad_seg.common.labels import labels_of
from dfad_seg.common.progress import ProgressReport
from dfad_seg.exporting.base import Exported, Made, Program, advice, as_program, as_properties, check_images, compare
from dfad_seg.segmentors import Segmentor

OPSET = 18
"""The newest that ONNX Runtime's quantiser, TensorRT and OpenVINO all take; its Resize is antialias-aware."""


def export_onnx(options: Program, *, segmentor: Segmentor, described: dict[str, Any]) -> Made:
    """One .onnx file: input `images`, output `logits`, metadata in its `metadata_props`."""
    require("export", "onnx", "onnxscript", "onnxruntime")
    import onnx

    program = as_program(segmentor, options, guarded=False)
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
        require("export", "onnxruntime")
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


# What carries nearly all the arithmetic; activations between convolutions stay in float32 where that is cheap.
OPERATORS = ("Conv", "MatMul", "Gemm")
TOLERATED = 0.02
"""A layer whose 8 bits alone change the class of a larger share of pixels of generated images stays in float32."""


def export_int8(onnx_file: Path, path: Path, images: Iterable[Tensor], *, segmentor: Segmentor) -> Exported:
    """Quantise an .onnx file of `export_onnx`: weights int8 per output channel, activations uint8, as QDQ pairs.

    Scales of activations are those of the smallest and largest value over the calibration images. Layers that alone
    change more than `TOLERATED` of the first batch's pixels stay in float32: few, early and small ones, as a rule.

    Args:
        images: batches (N, K, H, W) in [0, 1] to calibrate on; of the file's only shape if it has a fixed one.
        segmentor: what the answers are compared with, on the first of the batches. Rounding moves logits, so the
            comparison is only reported: look at the agreement, and at mIoU.

    Raises:
        InputError: packages are missing, there is no image, or the path cannot be written.
    """
    require("export", "onnx", "onnxruntime")
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    check_target(path)
    batches = list(images)
    if not batches:
        raise InputError("int8 needs images to calibrate on, and there are none.")
    first, count = batches[0], sum(map(len, batches))
    # The quantiser recommends, by the root logger, what was done a line before.
    with tempfile.TemporaryDirectory() as folder, quiet(logging.getLogger()):
        prepared, quantised = (Path(folder) / name for name in ("prepared.onnx", "quantised.onnx"))
        # Folds BatchNorm into convolutions and gives every tensor a shape; the symbolic way is for transformers.
        quant_pre_process(onnx_file, prepared, skip_symbolic_shape=True)

        def quantise(batches: list[Tensor], **nodes: list[str]) -> None:
            feed = ({"images": batch.detach().cpu().float().contiguous().numpy()} for batch in batches)

            class Reader(CalibrationDataReader):
                def get_next(self) -> dict[str, Any] | None:
                    return next(feed, None)

            quantize_static(
                prepared,
                quantised,
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(OPERATORS),
                per_channel=True,
                reduce_range=True,  # 7 bits: on x86 without VNNI the sums of 8-bit products saturate, silently
                # Biases in 32 bits bring two scales and a zero point each: three times the size, and no speed.
                extra_options={"QuantizeBias": False},
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                **nodes,
            )

        def labels(file: Path) -> Tensor:
            return labels_of(segmentor.class_logits(OnnxNetwork(file)(first)))

        expected = labels(onnx_file)
        layers = [node.name for node in onnx.load(str(prepared)).graph.node if node.op_type in OPERATORS]
        kept = []
        with ProgressReport("int8: what each layer alone changes", len(layers), unit="layer") as progress:
            for layer in layers:
                quantise([first], nodes_to_quantize=[layer])
                if (labels(quantised) != expected).double().mean() > TOLERATED:
                    kept.append(layer)
                progress.advance()
        quantise(batches, nodes_to_exclude=kept)
        model = onnx.load(str(quantised))
    del model.graph.value_info[:]  # a runtime infers these shapes, and asks for no names: a hundredth of a small file
    for node in model.graph.node:
        node.ClearField("name")
    properties = {pair.key: pair.value for pair in onnx.load(str(onnx_file)).metadata_props}
    layout = {"weights": "int8 per channel", "activations": "uint8", "float32_layers": len(kept), "layers": len(layers)}
    quantisation = {**layout, "calibration_images": count}
    onnx.helper.set_model_props(model, properties | as_properties({"quantisation": quantisation}))
    content = model.SerializeToString()
    check = check_images(segmentor, OnnxNetwork(content), first)
    write_whole(path, lambda handle: handle.write(content))
    notes = (
        f"int8 weights per channel, uint8 activations, calibrated on {count} images",
        f"{len(kept)} of {len(layers)} layers stay float32: 8 bits in one change over {TOLERATED:.0%} of the pixels",
    )
    return Exported("onnx int8", path, len(content), (check,), notes)
