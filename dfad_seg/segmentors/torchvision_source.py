"""Source `torchvision`: its segmentation networks, and DeepLabV3 on MobileNetV2."""

from typing import Any, Literal

from torch import nn

from dfad_seg.common.errors import InputError, choose, explained
from dfad_seg.common.values import FileName, options
from dfad_seg.segmentors.kinds import DOWNLOADED, Network, SourceOptions
from dfad_seg.segmentors.weights import load_encoder

DEEPLABV3_MOBILENETV2 = "deeplabv3_mobilenetv2"


@options
class TorchvisionOptions(SourceOptions):
    """A segmentation network of torchvision; it takes any input size."""

    arch: str
    """deeplabv3_resnet50 (the DFAD paper's teacher, output stride 8), deeplabv3_mobilenetv2 (its student, not a
    torchvision model), or another of torchvision's segmentation models."""
    aux_loss: bool = False
    """With torchvision's auxiliary classifier. Its answer is not used; checkpoints that contain it (torchvision's own
    do) load either way."""
    output_stride: Literal[8, 16] | None = None
    """For deeplabv3_mobilenetv2; default 16."""
    encoder_weights: Literal["imagenet"] | None = None
    """None for random weights. "imagenet" is downloaded: needs internet."""
    encoder_checkpoint: FileName | None = None
    """A local file of the backbone's weights: torchvision's classification network's, or the teacher's, likewise."""


def build_torchvision(chosen: TorchvisionOptions, *, num_classes: int) -> Network:
    """A segmentation network of torchvision."""
    # Imported here: torchvision takes a second, and other sources do not need it.
    import torchvision.models as models
    from torchvision.models import segmentation

    arch, num_classes = chosen.arch, chosen.out_channels(num_classes)
    builders: dict[str, Any] = {name: models.get_model_builder(name) for name in models.list_models(segmentation)}
    build = choose({**builders, DEEPLABV3_MOBILENETV2: None}, arch, "torchvision architecture")
    ours, extra = arch == DEEPLABV3_MOBILENETV2, {"aux_loss": True} if chosen.aux_loss else {}
    refused = {"aux_loss": chosen.aux_loss and (ours or arch.startswith("lraspp"))}
    refused |= {"output_stride": chosen.output_stride is not None and not ours}
    for name in (name for name, given in refused.items() if given):
        raise InputError(f"the torchvision network {arch} has no option '{name}'. Leave it out.")
    weights = None if chosen.encoder_weights is None else "IMAGENET1K_V1"
    with explained(f"torchvision cannot build {arch}", DOWNLOADED if weights else ""):
        if ours:
            stride = chosen.output_stride or 16
            module: Any = deeplabv3_mobilenetv2(num_classes, output_stride=stride, backbone_weights=weights)
        else:
            module = build(weights=None, weights_backbone=weights, num_classes=num_classes, **extra)
    if not chosen.aux_loss:
        module.unused_weights = ("aux_classifier.",)
    if chosen.in_channels not in (None, 3):
        first = next(layer for layer in module.modules() if isinstance(layer, nn.Conv2d))
        first.in_channels = chosen.in_channels
        first.weight = nn.Parameter(first.weight.new_empty(first.out_channels, chosen.in_channels, *first.kernel_size))
        first.reset_parameters()
    file = chosen.encoder_checkpoint
    return Network(module, {} if file is None else load_encoder(module.backbone, file))


def deeplabv3_mobilenetv2(num_classes: int, *, output_stride: int = 16, backbone_weights: Any = None) -> nn.Module:
    """DeepLabV3 (Chen et al. 2017, arXiv 1706.05587) on MobileNetV2, built like torchvision's own DeepLabs.

    The backbone ends before MobileNetV2's last 1x1 convolution, with 320 channels. Stages past the output stride, 8 or
    16, keep their resolution and dilate instead; as in torchvision's ResNet, the first block of such a stage has the
    dilation of the stage before. The head is torchvision's (atrous rates 12, 24, 36, 256 channels, dropout 0.5).
    """
    from torchvision.models import mobilenet_v2
    from torchvision.models._utils import IntermediateLayerGetter
    from torchvision.models.mobilenetv2 import InvertedResidual
    from torchvision.models.segmentation.deeplabv3 import DeepLabHead, DeepLabV3

    features = mobilenet_v2(weights=backbone_weights).features[:-1]
    stride, dilation = 2, 1  # after the first convolution
    for block in features:
        if not isinstance(block, InvertedResidual):
            continue
        depthwise = next(m for m in block.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3))
        depthwise.dilation = depthwise.padding = (dilation, dilation)
        if block.stride == 2 and stride == output_stride:
            depthwise.stride = (1, 1)
            dilation *= 2
        else:
            stride *= block.stride
    backbone = IntermediateLayerGetter(features, {str(len(features) - 1): "out"})
    return DeepLabV3(backbone, DeepLabHead(320, num_classes), None)
