"""How often a segmentor's classes occurred in its training data, read off its weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dfad_seg.common.errors import InputError
from dfad_seg.segmentors.base import Segmentor

SAMPLES = 20_000


@torch.no_grad()
def class_frequencies(segmentor: Segmentor) -> Tensor:
    """An estimate (C,) of the share of each class in the pixels of the training data; sums to 1. No image is needed.

    A trained BatchNorm with weight γ and bias β leaves each of its channels with mean β and standard deviation |γ|
    over the training data. Where the classifier's convolution follows such a layer and a ReLU, its logits for a pixel
    are about W·relu(z) + b with z ~ N(β, γ²), channels taken as independent, and the mean of their softmax is the
    estimate. It is rough (on a CamVid teacher: within a factor of 2 for most classes, 4 to 6 for some), and far better
    than taking classes as equally frequent.

    Raises:
        InputError: the network does not end in BatchNorm, activation and a convolution, or hides its layers.
    """
    norm, head = last_layers(segmentor)
    # On the CPU and from a seed of its own: the same for every rank and device.
    z = torch.randn(SAMPLES, norm.num_features, generator=torch.Generator().manual_seed(0))
    features = (norm.bias.float().cpu() + norm.weight.float().cpu() * z).relu()
    logits = features @ head.weight.float().cpu().sum(dim=(2, 3)).T
    if head.bias is not None:
        logits = logits + head.bias.float().cpu()
    return logits.softmax(dim=1).mean(dim=0)


def last_layers(segmentor: Segmentor) -> tuple[nn.BatchNorm2d, nn.Conv2d]:
    """The last BatchNorm of a forward pass and the convolution to the classes after it.

    Raises:
        InputError: the network does not end like this, or hides its layers.
    """
    called: list[nn.Module] = []
    layers = [module for module in segmentor.modules() if isinstance(module, (nn.BatchNorm2d, nn.Conv2d))]
    # In order of their calls: MMSegmentation's heads create the classifier first.
    handles = [layer.register_forward_hook(lambda layer, *_: called.append(layer)) for layer in layers]
    training = [module for module in segmentor.modules() if module.training]
    try:
        segmentor.eval()
        device = next(segmentor.parameters()).device if layers else None
        segmentor(torch.zeros(1, 3, 64, 64, device=device))
    finally:
        for handle in handles:
            handle.remove()
        for module in training:
            module.training = True
    head: nn.Conv2d | None = None
    norm: nn.BatchNorm2d | None = None
    for module in called:
        if isinstance(module, nn.BatchNorm2d):
            norm, head = module, None
        elif isinstance(module, nn.Conv2d) and module.out_channels == segmentor.num_classes:
            head = module
    if norm is None or head is None or not norm.affine or head.in_channels != norm.num_features or head.groups != 1:
        raise InputError(
            "class frequencies are read off a network that ends in BatchNorm, an activation and a convolution to its "
            "classes, and this one does not, or hides its layers. Set generator.class_frequencies: uniform."
        )
    return norm, head
