"""A server of processes, and an undisturbed run to compare with."""

import time
from types import SimpleNamespace

import pytest
from harness import Server, tiny_config


@pytest.fixture(autouse=True)
def plain_charts(monkeypatch):
    """No curves are drawn, as in the server's processes."""
    monkeypatch.setattr("dfad_seg.runs.report.curves_svg", lambda *_, **__: "<svg></svg>")


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server") / "output.txt")
    yield server
    server.close()


@pytest.fixture(scope="session")
def undisturbed(server, tmp_path_factory, tiny_scenes):
    """`config`, `run` and the `seconds` that it took, of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    config, run = tiny_config(folder, tiny_scenes), folder / "run"
    began = time.monotonic()
    code, output = server.call("train", config, "--work-dir", run)
    assert code == 0, output
    return SimpleNamespace(config=config, run=run, seconds=time.monotonic() - began, folder=folder)
