"""What the site does beyond MkDocs: pages from the repository's root, and equations as MathML.

Equations stand between dollar signs, which GitHub shows as well; as MathML they need no script and no network.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

REPOSITORY = Path(__file__).resolve().parents[2]
ROOT_PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages that lie beside docs/."""
    for source, page in ROOT_PAGES.items():
        text = (REPOSITORY / source).read_text(encoding="utf-8")
        # Their links are relative to the repository's root.
        text = re.sub(r"\]\(docs/([^)]+)\)", r"](\1)", text)
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links out of docs/ to those pages, and equations."""
    for source, page in ROOT_PAGES.items():
        markdown = re.sub(rf"\]\((?:\.\./)?{re.escape(source)}", f"]({page}", markdown)
    parts = re.split(r"(```.*?```|`[^`\n]+`)", markdown, flags=re.DOTALL)
    return "".join(part if part.startswith("`") else _equations(part) for part in parts)


def _equations(text: str) -> str:
    text = re.sub(r"\$\$(.+?)\$\$", lambda m: convert(m[1].strip(), display="block"), text, flags=re.DOTALL)
    return re.sub(r"(?<![\\\w$])\$(?=\S)([^$\n]+?)(?<=\S)\$(?![\w$])", lambda m: convert(m[1]), text)
