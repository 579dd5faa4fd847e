"""A small network and its exported forms, for the tests of the sources."""

import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

NUM_CLASSES = 5


class Tiny(nn.Module):
    """Logits at half the input's resolution, with BatchNorm and dropout."""

    def __init__(self, num_classes: int = NUM_CLASSES) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.dropout = nn.Dropout(0.5)
        self.classifier = nn.Conv2d(8, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.dropout(torch.relu(self.norm(self.features(x)))))


def trained_tiny() -> Tiny:
    """A Tiny in evaluation mode whose running statistics are not the initial ones."""
    torch.manual_seed(0)
    network = Tiny()
    for _ in range(3):
        network(torch.rand(4, 3, 16, 16) * 2 - 1)
    return network.eval()


def save_script(network: nn.Module, path: Path, *, frozen: bool = False) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.script(network)
        if frozen:
            script = torch.jit.freeze(script)
        torch.jit.save(script, str(path))
    return path


def save_export(network: nn.Module, path: Path, *, dynamic: bool = True) -> Path:
    sizes = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.export.export(network, (torch.rand(2, 3, 32, 48),), dynamic_shapes=(sizes,) if dynamic else None)
    torch.export.save(program, path)
    return path


@pytest.fixture(scope="session")
def networks() -> SimpleNamespace:
    """The helpers above, for test files (which cannot import from here in every import mode of pytest)."""
    return SimpleNamespace(Tiny=Tiny, trained_tiny=trained_tiny, save_export=save_export)


@pytest.fixture(scope="session")
def opaque(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of `trained_tiny()`: script, frozen script, export with dynamic and with fixed sizes."""
    folder = tmp_path_factory.mktemp("opaque")
    return {
        "script": save_script(trained_tiny(), folder / "tiny.ts"),
        "frozen": save_script(trained_tiny(), folder / "frozen.ts", frozen=True),
        "export": save_export(trained_tiny(), folder / "tiny.pt2"),
        "fixed": save_export(trained_tiny(), folder / "fixed.pt2", dynamic=False),
    }
