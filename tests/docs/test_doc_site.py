"""The site builds with warnings as errors, needs nothing from elsewhere, and shows equations without a script."""

import importlib.util
import os
import re
import subprocess
import sys

import pytest
from doc_pages import REPOSITORY

needed = ("material", "mkdocstrings_handlers", "latex2mathml")
missing = [package for package in needed if importlib.util.find_spec(package) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}: pip install '.[docs]'"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=280,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stderr
    return out


def test_pages(site):
    assert "<math" in (site / "method.html").read_text() and "$$" not in (site / "method.html").read_text()
    api = (site / "api.html").read_text()
    for documented in ("dfad_seg.distill.student_step", "dfad_seg.segmentors.Segmentor", "InputError"):
        assert documented in api
    assert 'id="report"' in (site / "configuration.html").read_text()
    assert (site / "contributing.html").is_file() and (site / "changelog.html").is_file()


def test_nothing_is_fetched_from_elsewhere(site):
    for page in site.glob("*.html"):
        text = page.read_text()
        fetched = re.findall(r'<(?:script|img|iframe)[^>]* src="(https?:[^"]+)"', text)
        fetched += re.findall(r'<link[^>]* rel="(?:stylesheet|preconnect)"[^>]* href="(https?:[^"]+)"', text)
        assert fetched == [], page.name
