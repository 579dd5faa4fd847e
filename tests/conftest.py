"""What every test shares."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# Before torch is imported, so that worker processes inherit it. The tests' tensors are tiny: a second thread
# only adds waiting, and spinning threads of several processes slow each other down many times over.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Of a suite that runs in the background, Ctrl-C is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no fault of the example that was just tried.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="run the long tests of reliability, and nothing else")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Not by -m in addopts, which somebody's own -m would replace.
    wanted = [item for item in items if bool(item.get_closest_marker("soak")) == config.getoption("--soak")]
    if left_out := [item for item in items if item not in wanted]:
        config.hook.pytest_deselected(items=left_out)
        items[:] = wanted


@pytest.fixture(scope="session")
def tiny_scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a street scenes data set: 32x48 pixels, 6 train, 3 val and 3 test scenes. Do not write to it."""
    from dfad_seg.datasets import write_street_scenes

    root = tmp_path_factory.mktemp("street_scenes")
    write_street_scenes(root, size=(32, 48), counts={"train": 6, "val": 3, "test": 3}, seed=7)
    return root
