"""Every architecture of smp at every size: the stride and the least size that it needs, padding, or one message."""

from typing import Any

import pytest
import torch

from dfad_seg.common.errors import InputError
from dfad_seg.segmentors import NetworkFailed, build_segmentor

SMALL: dict[str, Any] = {"encoder_name": "tu-resnet10t"}
PYRAMID = {"decoder_pyramid_channels": 16, "decoder_segmentation_channels": 64}
# (options, the stride and the least side that the bare network needs)
ARCHITECTURES: dict[str, tuple[dict[str, Any], int, int]] = {
    "Unet": ({"decoder_channels": [16, 8, 8, 8, 8]}, 1, 1),
    "UnetPlusPlus": ({"decoder_channels": [16, 8, 8, 8, 8]}, 32, 32),
    "MAnet": ({"decoder_channels": [16, 16, 16, 16, 16], "decoder_pab_channels": 8}, 32, 32),
    "Linknet": ({}, 32, 32),
    "FPN": (PYRAMID, 32, 32),
    "PSPNet": ({"psp_out_channels": 16}, 8, 8),
    "PAN": ({}, 16, 128),
    "DeepLabV3": ({"decoder_channels": 16}, 8, 8),
    "DeepLabV3Plus": ({"decoder_channels": 16}, 16, 16),
    "UPerNet": ({"decoder_channels": 16}, 32, 32),
    "Segformer": ({"decoder_segmentation_channels": 16}, 32, 32),
    "DPT": ({"encoder_name": "tu-vit_tiny_patch16_224", "encoder_options": {"dynamic_img_size": True},
             "decoder_intermediate_channels": [8, 8, 8, 8], "decoder_fusion_channels": 8}, 32, 32),
}  # fmt: skip


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_any_size(arch: str) -> None:
    options, stride, smallest = ARCHITECTURES[arch]
    segmentor = build_segmentor("smp", num_classes=2, arch=arch, **{**SMALL, **options}).eval()
    assert (segmentor.stride, segmentor.smallest) == (stride, smallest)
    with torch.no_grad():
        for size in ((1, 1), (33, 70), (129, 131)):
            logits = segmentor(torch.rand(1, 3, *size))
            assert logits.shape == (1, 2, *size) and bool(torch.isfinite(logits).all())
        if smallest > stride:
            # It truly needs it: one step less, and the network itself fails.
            segmentor.smallest = 1
            with pytest.raises(InputError, match="the network failed on an input"):
                segmentor(torch.rand(1, 3, smallest - stride, smallest - stride))


def test_a_transformer_of_one_size_says_so() -> None:
    segmentor = build_segmentor("smp", num_classes=2, arch="DPT", encoder_name="tu-vit_tiny_patch16_224").eval()
    assert segmentor.fixed_size == (224, 224)
    with pytest.raises(NetworkFailed, match="224x224 only, and got 64x64. .*dynamic_img_size: true"):
        segmentor(torch.rand(1, 3, 64, 64))
