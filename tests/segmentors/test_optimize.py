"""The rewrites against the networks and convolutions that they replace."""

import copy
import warnings
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dfad_seg.segmentors import (
    Segmentor,
    build_segmentor,
    freeze,
    optimize_for_distillation,
    restore_convolutions,
    state_hash,
)
from dfad_seg.segmentors.convolutions import RewrittenConv2d, rewrite_convolutions

FAMILIES: dict[str, dict[str, Any]] = {
    "deeplabv3_mobilenetv2": {"source": "torchvision", "arch": "deeplabv3_mobilenetv2", "output_stride": 8},
    "lraspp": {"source": "torchvision", "arch": "lraspp_mobilenet_v3_large"},
    "smp_deeplabv3": {"source": "smp", "arch": "DeepLabV3", "encoder_name": "resnet18"},
    "smp_timm": {"source": "smp", "arch": "DeepLabV3Plus", "encoder_name": "tu-test_efficientnet"},
    "smp_unet": {"source": "smp", "arch": "Unet", "encoder_name": "resnet18"},
}
WITHOUT_DILATION = ("smp_unet",)


def network(family: str) -> Segmentor:
    """With running statistics as after training, and without dropout, so that two copies can be compared."""
    torch.manual_seed(3)
    built = build_segmentor(num_classes=4, **FAMILIES[family])
    for part in built.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 2.0)
        elif isinstance(part, nn.Dropout):
            part.p = 0.0
    return built


def count(module: nn.Module, kind: type) -> int:
    return sum(isinstance(part, kind) for part in module.modules())


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    """Equal up to rounding, in units of the largest entry."""
    scale = float(expected.abs().max()) + 1e-12
    assert float((found - expected).abs().max()) <= tolerance * scale


@pytest.mark.parametrize("family", FAMILIES)
def test_frozen_network_answers_the_same_at_every_size(family: str) -> None:
    original = freeze(network(family))
    before = state_hash(original)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast = optimize_for_distillation(original, (64, 64), trainable=False)
    assert count(original, nn.BatchNorm2d) > 0 == count(fast, nn.BatchNorm2d)
    assert (count(fast, RewrittenConv2d) > 0) == (family not in WITHOUT_DILATION)
    assert count(original, RewrittenConv2d) == 0 and state_hash(original) == before
    with torch.no_grad():
        images = torch.rand(2, 3, 70, 130)
        close(fast(images), original(images))
    # Gradients in double precision, as rounding in single precision is enlarged on the way through a deep network.
    original.double()
    fast = optimize_for_distillation(original, (64, 64), trainable=False)
    for found, expected in zip(passed(fast), passed(original), strict=True):
        close(found, expected, 1e-9)
    assert all(parameter.grad is None for which in (original, fast) for parameter in which.parameters())


def passed(which: nn.Module) -> tuple[Tensor, Tensor]:
    """Logits, and gradients at the images, of one pass there and back in double precision."""
    rng = torch.Generator().manual_seed(1)
    inputs = torch.rand(2, 3, 64, 96, generator=rng, dtype=torch.float64).requires_grad_()
    logits = which(inputs)
    logits.square().mean().backward()
    return logits.detach(), inputs.grad


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in WITHOUT_DILATION])
def test_trainable_network_trains_the_same(family: str) -> None:
    # In double precision: what is left are mistakes, not rounding that a deep network in training mode enlarges.
    original = network(family).double().train()
    fast = copy.deepcopy(original)
    parameters = list(fast.parameters())
    assert optimize_for_distillation(fast, (64, 64), trainable=True) is fast
    assert all(a is b for a, b in zip(parameters, fast.parameters(), strict=True))
    assert count(fast, RewrittenConv2d) > 0
    for found, expected in zip(passed(fast), passed(original), strict=True):
        close(found, expected, 1e-9)
    for a, b in zip(fast.parameters(), original.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-6, atol=1e-11)
    torch.testing.assert_close(fast.state_dict(), original.state_dict(), rtol=1e-7, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 11), st.integers(1, 11)),
    kernel=st.tuples(st.sampled_from([1, 3, 5]), st.sampled_from([3, 5])),
    dilation=st.tuples(st.integers(1, 7), st.integers(2, 7)),
    depthwise=st.booleans(),
    bias=st.booleans(),
)
def test_any_dilated_convolution_keeps_value_and_gradients(size, kernel, dilation, depthwise, bias) -> None:
    torch.manual_seed(0)
    padding = tuple(d * (k // 2) for d, k in zip(dilation, kernel, strict=True))
    groups = 6 if depthwise else 2
    plain = nn.Conv2d(6, 6, kernel, padding=padding, dilation=dilation, groups=groups, bias=bias).double()
    fast = copy.deepcopy(plain)
    assert rewrite_convolutions(fast) == 1
    x = torch.randn(2, 6, *size, dtype=torch.float64)
    weights = torch.randn(2, 6, *size, dtype=torch.float64)
    results = []
    for conv in (plain, fast):
        inputs = x.clone().requires_grad_()
        (conv(inputs) * weights).sum().backward()
        results.append([inputs.grad, *(p.grad for p in conv.parameters())])
    for found, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(2, 2, 3, padding=1),
        nn.Conv2d(2, 2, 3, padding=2, dilation=2, stride=2),
        nn.Conv2d(2, 2, 3, padding=1, dilation=2),
        nn.Conv2d(2, 2, 3, padding=2, dilation=2, padding_mode="reflect"),
        nn.Conv2d(2, 2, 4, padding=4, dilation=2),
    ],
)
def test_other_convolutions_are_left_alone(conv: nn.Conv2d) -> None:
    assert rewrite_convolutions(conv) == 0 and type(conv) is nn.Conv2d


def test_copies_states_and_autocast_do_not_notice() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8))
    fast = copy.deepcopy(plain)
    rewrite_convolutions(fast)
    assert isinstance(copy.deepcopy(fast)[1], RewrittenConv2d)
    assert [(k, v.shape) for k, v in fast.state_dict().items()] == [(k, v.shape) for k, v in plain.state_dict().items()]
    images = torch.rand(1, 3, 9, 9)
    gradients = []
    for which in (plain, fast):
        with torch.autocast("cpu", torch.bfloat16):
            answer = which(images)
        assert answer.dtype == torch.bfloat16
        answer.float().square().mean().backward()
        gradients.append([p.grad for p in which.parameters()])
    for found, expected in zip(gradients[1], gradients[0], strict=True):
        assert found.dtype == expected.dtype
        close(found, expected, 0.02)
    restore_convolutions(fast)
    assert {type(part) for part in fast} == {nn.Conv2d} and vars(fast[1]).keys() == vars(plain[1]).keys()


class _Branches(nn.Module):
    """Convolutions whose BatchNorm may not be folded, as theirs are not its inputs alone, and one whose may."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.norm_a = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.changed, self.norm_b = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.plain, self.norm_c = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm_a(self.shared(x)) + self.norm_a(self.shared(x + 1))
        x = self.norm_b(self.changed(x).relu_())
        return self.norm_c(self.plain(x))


class _Residual(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        y = self[0](x)
        return self[1](y) + y


class _Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        weight = (self.weight - self.weight.mean((1, 2, 3), keepdim=True)) / self.weight.std((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


def spectral() -> nn.Module:
    return nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 3))


@pytest.mark.parametrize(
    ("make", "kept", "says"),
    [
        (_Branches, ["norm_a", "norm_b"], False),
        (lambda: nn.Sequential(spectral(), nn.BatchNorm2d(4)), ["1"], False),
        (lambda: nn.Sequential(_Standardised(3, 4, 3), nn.BatchNorm2d(4)), ["1"], True),
        (lambda: nn.Sequential(nn.utils.weight_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4)), ["1"], True),
        (lambda: _Residual(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), ["1"], True),
    ],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm")
def test_batch_norm_is_folded_only_where_the_answers_stay(make: Any, kept: list[str], says: bool) -> None:
    torch.manual_seed(0)
    module = make()
    for _ in range(3):
        module(torch.rand(4, 3, 16, 16))
    module.eval().requires_grad_(False)(torch.rand(1, 3, 16, 16))
    with pytest.warns(UserWarning, match="BatchNorm of the teacher is not folded: ") if says else nullcontext():
        fast = optimize_for_distillation(module, (16, 16), trainable=False)
    assert [name for name, part in fast.named_modules() if isinstance(part, nn.BatchNorm2d)] == kept
    images = torch.rand(2, 3, 20, 17)
    torch.testing.assert_close(fast(images), module(images), rtol=1e-4, atol=1e-4)


def test_batch_norm_stays_where_it_is_needed() -> None:
    teacher = freeze(network("smp_timm"))
    assert optimize_for_distillation(teacher, (32, 32), trainable=False, fold_batch_norm=False) is teacher
