"""Links between pages lead somewhere, to the very heading; pictures are small; all pages are on the site."""

import re

import pytest
import yaml
from doc_pages import PAGES, REPOSITORY, name, without_code

LINKS = [
    pytest.param(page, target, id=f"{name(page)}: {target}")
    for page in PAGES
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text(encoding="utf-8")))
    if not re.match(r"https?:", target)
]


def anchors(page):
    """The anchors of a page's headings, as GitHub and MkDocs make them of plain words."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE):
        plain = re.sub(r"[^\w\s-]", "", heading.replace("`", "").lower())
        found.add(re.sub(r"\s+", "-", plain.strip()))
    return found


@pytest.mark.parametrize(("page", "target"), LINKS)
def test_link(page, target):
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    assert file.is_relative_to(REPOSITORY)
    assert file.is_file(), f"{target} leads nowhere"
    if anchor:
        assert anchor in anchors(file), f"{name(file)} has no heading for #{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_addresses_are_no_package_registries(page):
    assert not re.search(r"https?://(pypi\.org|files\.pythonhosted|registry\.npmjs)", page.read_text(encoding="utf-8"))


def test_pictures_are_small():
    sizes = {file.name: file.stat().st_size for file in (REPOSITORY / "docs" / "images").iterdir()}
    assert {file: size for file, size in sizes.items() if size > 300_000} == {}


def test_every_page_is_on_the_site():
    text = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"[\w/]+\.md", yaml.safe_dump(yaml.safe_load(text)["nav"])))
    here = {file.name for file in (REPOSITORY / "docs").glob("*.md")}
    assert here | {"contributing.md", "changelog.md"} == listed
