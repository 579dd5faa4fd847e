"""The exported forms of a small network."""

from pathlib import Path

import pytest
from shared import exported, scripted, trained_tiny


@pytest.fixture(scope="session")
def opaque(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of `trained_tiny()`: script, frozen script, export with dynamic and with fixed sizes."""
    folder = tmp_path_factory.mktemp("opaque")
    return {
        "script": scripted(trained_tiny(), folder / "tiny.ts"),
        "frozen": scripted(trained_tiny(), folder / "frozen.ts", frozen=True),
        "export": exported(trained_tiny(), folder / "tiny.pt2"),
        "fixed": exported(trained_tiny(), folder / "fixed.pt2", dynamic=False),
    }
