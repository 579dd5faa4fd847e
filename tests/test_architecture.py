"""The layers of the package, checked on its source; docs/architecture.md explains them."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "dfad_seg"

# Layer -> the other layers that it may import. A layer is a module or sub-package right under dfad_seg.
ALLOWED: dict[str, set[str]] = {
    "common": set(),
    "segmentors": {"common"},
    "generators": {"common"},
    "objectives": {"common"},
    "datasets": {"common"},
    "evaluation": {"common"},
    "exporting": {"common", "segmentors"},
    "runs": {"common"},
    "distill": {"common", "objectives", "generators"},
    "config": {"common", "segmentors", "generators", "datasets", "evaluation", "distill"},
    "recipes": {
        "common", "segmentors", "generators", "datasets", "evaluation", "runs", "distill", "config",
        "exporting",
    },
    "integrations": {"common", "segmentors", "distill", "config", "recipes", "exporting"},
    "cli": {"common", "recipes"},
    "__main__": {"cli"},
}  # fmt: skip

# Packages that only these files or folders may import; an empty set means nobody.
CONFINED: dict[str, set[str]] = {
    "albumentations": {"datasets/transforms.py"},
    "segmentation_models_pytorch": {"segmentors/"},
    "timm": {"segmentors/"},
    "torchvision": {"segmentors/"},
    "transformers": {"segmentors/transformers_"},
    "pydantic": {"common/values.py"},
    "lightning_fabric": {"distill/", "recipes/"},
    "mmcv": {"integrations/mmseg/", "segmentors/mmseg_", "exporting/mmseg_"},
    "mmengine": {"integrations/mmseg/", "segmentors/mmseg_", "exporting/mmseg_"},
    "mmseg": {"integrations/mmseg/", "segmentors/mmseg_", "exporting/mmseg_"},
}


def imports(source: str, module: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import in a module's source, also inside functions and by `importlib`."""
    package = module if module.endswith(".__init__") else module.rpartition(".")[0]
    package = package.removesuffix(".__init__")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = ".".join(parents[: len(parents) - node.level + 1]) if node.level else ""
            origin = ".".join(part for part in (base, node.module) if part)
            # `from dfad_seg import datasets` imports a layer by its short name.
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # A string that is a module's name is there to be imported.
            if re.fullmatch(r"dfad_seg(\.\w+)+", node.value):
                yield node.lineno, node.value


def violations(source: str, module: str) -> list[str]:
    """What a module's source imports against the rules above; `module` is its dotted name."""
    layer = module.split(".")[1]
    path = module.removeprefix("dfad_seg.").replace(".", "/") + ".py"
    found = []
    for line, name in imports(source, module):
        top, _, rest = name.partition(".")
        if top in CONFINED and not any(path.startswith(place) for place in CONFINED[top]):
            found.append(f"{module}:{line} imports {top}")
        if top == "dfad_seg" and rest != "__version__":
            target = rest.split(".")[0]
            if target != layer and target not in ALLOWED.get(layer, set()):
                found.append(f"{module}:{line} imports {name}")
    return found


def modules() -> dict[str, str]:
    """Dotted name -> source of every file of the package but its front door, `dfad_seg/__init__.py`."""
    files = sorted(PACKAGE.rglob("*.py"))
    return {
        ".".join(file.relative_to(REPOSITORY).with_suffix("").parts): file.read_text(encoding="utf-8")
        for file in files
        if file != PACKAGE / "__init__.py"
    }


def test_imports_run_downwards_only() -> None:
    assert [found for name, source in modules().items() for found in violations(source, name)] == []


def test_every_layer_has_a_rule() -> None:
    present = {name.split(".")[1] for name in modules()}
    assert present == set(ALLOWED)


def test_the_rules_have_no_cycle() -> None:
    rank: dict[str, int] = {}
    while len(rank) < len(ALLOWED):
        ready = [layer for layer, below in ALLOWED.items() if layer not in rank and below <= rank.keys()]
        assert ready, f"a cycle among {sorted(ALLOWED.keys() - rank.keys())}"
        rank |= dict.fromkeys(ready, len(rank))


@pytest.mark.parametrize("layer", ["distill", "objectives", "generators", "segmentors"])
def test_the_data_free_layers_cannot_see_a_data_set(layer: str) -> None:
    reachable, todo = set(), [layer]
    while todo:
        reachable.add(current := todo.pop())
        todo += ALLOWED[current] - reachable
    assert "datasets" not in reachable


@pytest.mark.slow
def test_the_method_runs_without_the_data_set_code() -> None:
    """The same once more, at run time: not even a dependency brings the data sets in."""
    method = "dfad_seg.distill, dfad_seg.generators, dfad_seg.segmentors"
    assert imported(method, "dfad_seg.datasets", "albumentations") == []
    assert imported("dfad_seg.recipes", "dfad_seg.integrations", "mmseg", "mmcv", "mmengine", "albumentations") == []


def test_importing_does_not_wait_for_torch() -> None:
    assert imported("dfad_seg", "torch") == []


def imported(modules: str, *found: str) -> list[str]:
    """Which of the modules that begin with `found` a fresh Python has after importing `modules`."""
    code = f"import sys, {modules}\nprint(*[name for name in sys.modules if name.startswith({found!r})])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.split()
