"""The reference of config keys is current, complete, and says something about each key."""

import inspect
import re

from doc_pages import REPOSITORY

from dfad_seg.config import Config, EvaluationConfig
from dfad_seg.config.reference import config_reference
from dfad_seg.generators import LayoutGenerator
from dfad_seg.objectives.discrepancy import DISCREPANCIES
from dfad_seg.recipes.option_reference import documented, option_reference

PAGE = REPOSITORY / "docs" / "configuration.md"


def rows(text):
    return {m[1]: [c.strip() for c in m[2].split(" | ")] for m in re.finditer(r"^\| `(\w+)` \| (.*) \|$", text, re.M)}


def test_the_committed_page_is_current():
    wrong = "run: python tools/config_reference.py --out docs/configuration.md"
    assert PAGE.read_text(encoding="utf-8") == config_reference() + "\n" + option_reference(), wrong


def test_every_option_is_explained():
    page = option_reference()
    sections = {section.splitlines()[0]: rows(section) for section in re.split(r"^## ", page, flags=re.M)[1:]}
    assert len(sections) == 10
    layout = sections["`generator`, `type: layout`"]
    assert set(layout) == set(inspect.signature(LayoutGenerator).parameters) - {"num_classes"}
    losses = sections["`student_loss`, `adversarial_loss`"]
    assert set(losses) == set(DISCREPANCIES)
    assert [name for table in sections.values() for name, cells in table.items() if not cells[-1]] == []
    assert layout["boxes"] == ["`10`", "most small upright boxes before the regions of a layout."]


def test_arguments_of_a_docstring():
    text = "Does.\n\nArgs:\n    a, b: the first\n        two.\n    c: (N, C): the third.\n\nRaises:\n    Error: never."
    both = "the first\n        two."
    assert documented(text) == {"a": both, "b": both, "c": "(N, C): the third."}


def test_every_key_is_there_and_explained():
    sections = re.split(r"^## ", config_reference(), flags=re.M)
    experiment = rows(next(section for section in sections if section.startswith("Experiment")))
    assert set(experiment) == set(Config.model_fields)
    evaluation = rows(next(section for section in sections if section.startswith("`evaluation`")))
    assert set(evaluation) == set(EvaluationConfig.model_fields)
    assert [key for key, cells in {**experiment, **evaluation}.items() if not cells[2]] == []


def test_rows_by_hand():
    experiment = rows(config_reference().split("\n## ")[1])
    assert experiment["student_steps"] == [
        "integer > 0",
        "`5`",
        "k, student steps per generator step.",
        "dfad, random_noise",
    ]
    assert experiment["image_size"][:2] == ["[integer > 0, integer > 0]", "`[128, 128]`"]
    assert experiment["method"][:2] == ["`supervised`, `distill_with_data`, `dfad`, `random_noise`", "needed"]
    assert experiment["ema_decay"][:2] == ["number > 0, < 1", "–"]
    assert experiment["student_loss"][:2] == ["mapping to number ≥ 0", '`{"mae": 1.0}`']
