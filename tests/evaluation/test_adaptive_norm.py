"""BatchNorm that leans on each image's own statistics, against NumPy and instance normalisation."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d
from torch import nn

from dfad_seg.common.errors import InputError
from dfad_seg.evaluation import Inference, evaluate_miou
from dfad_seg.evaluation.adaptive_norm import adaptive_batch_norm


def layer(kind=nn.BatchNorm2d):
    torch.manual_seed(0)
    norm = kind(3)
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.normal_(norm.bias)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.2, 3)
    return norm.eval()


def images(size=(8, 9)):
    return 2 * torch.randn(4, 3, *size, generator=torch.Generator().manual_seed(1)) + 1


@pytest.mark.parametrize("weight", [0.0, 0.2, 0.7, 1.0])
def test_each_image_is_normalised_by_the_mixture(weight):
    norm, x = layer(), images()
    with torch.no_grad(), adaptive_batch_norm(norm, weight):
        found = norm(x)
    rng = np.random.default_rng(0)
    for i in range(len(x)):
        for c in range(3):
            own = x[i, c].double().numpy().ravel()
            # A sample of the mixture: a share of `weight` from the image, the rest normal with the running moments.
            mean, var = norm.running_mean[c].item(), norm.running_var[c].item()
            rest = rng.normal(size=100_000)
            rest = mean + np.sqrt(var) * (rest - rest.mean()) / rest.std()
            shares = np.r_[np.full(own.size, weight / own.size), np.full(rest.size, (1 - weight) / rest.size)]
            values = np.r_[own, rest]
            m = (shares * values).sum()
            v = (shares * (values - m) ** 2).sum()
            expected = (x[i, c].numpy() - m) / np.sqrt(v + norm.eps) * norm.weight[c].item() + norm.bias[c].item()
            np.testing.assert_allclose(found[i, c].numpy(), expected, atol=2e-4)


def test_weight_one_is_instance_normalisation():
    norm, x = layer(), images()
    with torch.no_grad(), adaptive_batch_norm(norm, 1.0):
        torch.testing.assert_close(norm(x), F.instance_norm(x, weight=norm.weight, bias=norm.bias), atol=1e-5, rtol=0)


def test_layers_with_an_activation_inside_keep_it():
    norm, plain, x = layer(BatchNormAct2d), layer(), images()
    with torch.no_grad(), adaptive_batch_norm(norm, 0.4), adaptive_batch_norm(plain, 0.4):
        assert torch.equal(norm(x), plain(x).relu())


def test_training_mode_small_maps_and_what_comes_after_are_left_alone():
    norm = layer()
    for x, mode in ((images(), True), (images((1, 1)), False), (images((7, 9)), False)):
        norm.train(mode)
        expected = norm(x)
        with adaptive_batch_norm(norm, 0.5):
            assert torch.equal(norm(x), expected)
    norm.eval()
    with torch.no_grad():
        expected = norm(images())
        with pytest.raises(RuntimeError, match="inside"), adaptive_batch_norm(norm, 0.5):
            assert not torch.equal(norm(images()), expected)
            raise RuntimeError("inside")
        assert torch.equal(norm(images()), expected)


def test_a_score_does_not_depend_on_the_batches():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    network[1].running_mean.fill_(0.3)
    pictures = torch.rand(6, 3, 12, 12)
    truth = torch.randint(0, 2, (6, 12, 12))
    batches = [[{"image": pictures[i : i + n], "mask": truth[i : i + n]} for i in range(0, 6, n)] for n in (1, 3, 6)]
    scores = [
        evaluate_miou(network, parts, num_classes=2, inference=Inference(adaptive_norm=0.3)).mIoU for parts in batches
    ]
    assert scores[0] == scores[1] == scores[2]
    assert scores[0] != evaluate_miou(network, batches[0], num_classes=2).mIoU


def test_what_cannot_be_adapted_is_said():
    batch = {"image": torch.rand(1, 3, 8, 8), "mask": torch.zeros(1, 8, 8, dtype=torch.long)}
    for network in (nn.Conv2d(3, 2, 1), lambda x: x[:, :2]):
        with pytest.raises(InputError, match="shows none. Leave adaptive_norm at 0"):
            evaluate_miou(network, [batch], num_classes=2, inference=Inference(adaptive_norm=0.3), device="cpu")
    with pytest.raises(InputError, match=r"adaptive_norm is 1.5; it must be in \[0, 1\]"):
        Inference(adaptive_norm=1.5)
