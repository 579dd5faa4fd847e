"""Links lead somewhere, pictures are small and current, the site builds without warnings, the house is in budget."""

import importlib.util
import os
import re
import subprocess
import sys

import house
import pytest
from doc_pages import PAGES, REPOSITORY, without_code

sys.path.append(str(REPOSITORY / "docs" / "_site"))
import tables  # noqa: E402
from reference import config_reference  # noqa: E402

LINKS = [
    pytest.param(page, target, id=f"{page.name}: {target}")
    for page in PAGES
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text(encoding="utf-8")))
    if not re.match(r"https?:", target)
]
SITE = ("material", "mkdocstrings_handlers", "latex2mathml")
MISSING = [package for package in SITE if importlib.util.find_spec(package) is None]


def anchors(page):
    """The anchors of a page's headings, as GitHub and MkDocs make them of plain words."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


def test_files_that_the_architecture_names_are_there():
    named = re.findall(r"`(\w+/[\w./]+\.(?:py|html))`", (REPOSITORY / "docs" / "architecture.md").read_text("utf-8"))
    here = ("", "dfad_seg", "docs")
    assert [name for name in named if not any((REPOSITORY / base / name).is_file() for base in here)] == []


@pytest.mark.parametrize(("page", "target"), LINKS)
def test_link(page, target):
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    assert file.is_relative_to(REPOSITORY) and file.is_file(), f"{target} leads nowhere"
    assert not anchor or anchor in anchors(file), f"{file.name} has no heading for #{anchor}"


def test_pictures_are_small():
    sizes = {file.name: file.stat().st_size for file in (REPOSITORY / "docs" / "images").iterdir()}
    assert {file: size for file, size in sizes.items() if size > 300_000} == {}


def test_every_page_is_on_the_site():
    listed = set(re.findall(r"[\w/]+\.md", (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:")[1]))
    here = {file.name for file in (REPOSITORY / "docs").glob("*.md")}
    assert here | {"index.md", "contributing.md", "changelog.md"} == listed


def test_the_picture_of_the_rooms_is_current():
    wrong = "run: python tests/house.py --draw"
    drawn = set(re.findall(r'id="(\w+)-(\w+)"', house.PICTURE.read_text(encoding="utf-8")))
    assert {arrow for arrow in drawn if arrow[0] in house.ALLOWED} == {a for a in house.arrows() if a[1] != "common"}, (
        wrong
    )


def test_the_reference_of_keys_is_current():
    page = (REPOSITORY / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == config_reference(), "run: python docs/_site/reference.py > docs/configuration.md"


def test_the_tables_of_results_are_current():
    for page in {page for page, *_ in tables.TABLES.values()}:
        text = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
        assert tables.filled(page, text) == text, "run: python docs/_site/tables.py"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if "frames" in name else ()) for name in house.BUDGETS]
)
def test_budget(name):
    limit, measure = house.BUDGETS[name]
    assert measure() <= house.CEILINGS.get(name, limit)


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}: pip install '.[docs]'")
def test_the_site_builds_and_fetches_nothing_from_elsewhere(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    settings = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=280, env=settings)
    assert done.returncode == 0, done.stderr
    assert "<math" in (tmp_path / "method.html").read_text() and "$$" not in (tmp_path / "method.html").read_text()
    assert "dfad_seg.student_step" in (tmp_path / "api.html").read_text()
    for page in tmp_path.glob("*.html"):
        text = page.read_text()
        fetched = re.findall(r'<(?:script|img|iframe)[^>]* src="(https?:[^"]+)"', text)
        fetched += re.findall(r'<link[^>]* rel="(?:stylesheet|preconnect)"[^>]* href="(https?:[^"]+)"', text)
        assert fetched == [], page.name
