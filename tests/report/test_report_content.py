"""What a report says, against numbers worked out by hand, and what it makes of bad, hostile and missing files."""

import html.parser
import json
import re

import markdown
import pytest
from report_samples import CLASSES, CONFIG, PROVENANCE, evaluation, make_run, training

from dfad_seg.cli import main
from dfad_seg.common.errors import InputError
from dfad_seg.report import read_content, write_report
from dfad_seg.report.content import evenly
from dfad_seg.report.markdown import plain


def test_tables_by_hand(tmp_path):
    content = read_content(make_run(tmp_path / "run"))
    rows = {row[0]: list(row[1:]) for row in content.classes.rows}
    # Teacher 80 %, student 60 %: three quarters are recovered. The teacher has no value for the third class.
    assert rows["road"] == ["80.00", "60.00", "75.0 %"]
    assert rows[CLASSES[1]] == ["60.00", "30.00", "50.0 %"]
    assert rows[CLASSES[2]] == ["–", "0.00", "–"]
    assert rows["mIoU"] == ["70.00", "30.00", "42.9 %"]
    assert content.classes.bars[:3] == pytest.approx([0.75, 0.5, None])
    networks = {row[0]: list(row[1:]) for row in content.networks.rows}
    assert networks["student"] == ["FPN tiny", "2,000", "0.500", "1.000", "50.0"]
    assert networks["teacher / student"] == ["", "4.0×", "8.0×", "8.0×", "4.0×"]
    assert "48×64" in content.networks.note
    assert dict(content.headline) == {
        "mIoU of the student (val)": "30.0 %",
        "mIoU of the teacher (val)": "70.0 %",
        "recovered": "42.9 %",
        "fewer parameters": "4.0×",
        "faster on this machine": "4.0×",
    }
    assert content.finished and content.status == "Finished: 40 iterations in 2 min 00 s."
    assert [picture.caption for picture in content.generated] == ["after 20 iterations", "after 40 iterations"]
    assert [picture.caption for picture in content.examples] == ["worst: <i>img</i>, mIoU 10.0 %"]


def test_curves(tmp_path):
    charts = {chart.title: chart for chart in read_content(make_run(tmp_path / "run")).charts}
    assert [line.name for line in charts["scores on the way"].series] == ["val/aAcc", "val/mIoU"]
    assert charts["scores on the way"].series[1].values == pytest.approx([0.2, 0.3])
    assert charts["student loss"].smooth and charts["student loss"].series[0].steps == list(range(2, 41, 2))
    assert charts["learning rates"].log
    assert {"generator loss", "agreement with the teacher", "teacher's answers on generated images"} <= charts.keys()


def test_a_run_that_has_just_begun(tmp_path):
    run = make_run(tmp_path / "run", records=[], data={}, finished=False)
    content = read_content(run)
    assert not content.finished and content.status.startswith("Not finished: 0 of 40 iterations")
    assert content.classes is None and content.charts == [] and content.warnings == [] and content.healthy == ""
    # Provenance knows the parameters before anything is measured.
    assert dict(content.headline) == {"fewer parameters": "4.0×"}
    assert write_report(run).stat().st_size > 1000


CLAIMS = [
    ({}, True, "No real image was read for training. Real images were read for evaluation only: folders, val split."),
    (
        {"trained_from": {"encoder_checkpoint": "imagenet.safetensors", "encoder_checkpoint_sha256": "f00"}},
        True,
        "val split. The student began with weights from elsewhere: imagenet.safetensors.",
    ),
    ({"trained_from": {}}, True, "evaluation only: folders, val split."),
    ({"real_images": []}, True, "No real image was read for training. None was read at all."),
    (
        {
            "real_images": [{"purpose": "training", "split": "train", "dataset": "voc"}],
            "real_images_used_for_training": True,
            "method": "distill_with_data",
        },
        False,
        "Real images were read for training: voc, train split.",
    ),
    ({"real_images_used_for_training": True}, False, "contradicts itself"),
    ({"real_images": [{"purpose": "training", "split": "train"}]}, False, "read for training"),
    ({"real_images": ["odd"]}, False, "contradicts itself"),
    ({"method": "supervised"}, False, "contradict each other"),
    ({"real_images": None}, None, "nothing can be said"),
]


@pytest.mark.parametrize(("changes", "expected", "words"), CLAIMS)
def test_the_claim_follows_the_records(tmp_path, changes, expected, words):
    content = read_content(make_run(tmp_path / "run", provenance=PROVENANCE | changes))
    assert content.data_free is expected
    assert words in content.claim
    if expected is not True:
        assert "No real image" not in content.claim


def test_without_a_record_nothing_is_claimed(tmp_path):
    assert read_content(make_run(tmp_path / "run", provenance=None)).data_free is None


class Elements(html.parser.HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.seen, self.texts = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)


def test_nothing_from_files_becomes_markup(tmp_path):
    run = make_run(tmp_path / "<img src=x onerror=alert(1)>")
    page = Elements(write_report(run).read_text())
    tags = {tag for tag, _ in page.seen}
    assert not tags & {"script", "i", "b", "a", "link", "iframe"}
    assert CLASSES[1] in page.texts
    assert not any(name.startswith("on") for _, attributes in page.seen for name in attributes)
    assert all(attributes["src"].startswith("data:image/") for tag, attributes in page.seen if tag == "img")
    shown = Elements(markdown.markdown((run / "report.md").read_text(), extensions=["tables"]))
    assert not {tag for tag, _ in shown.seen} & {"script", "i", "b", "a"}
    joined = "".join(shown.texts)
    for text in CLASSES:
        assert text in joined
    sources = [attributes["src"] for tag, attributes in shown.seen if tag == "img"]
    assert len(sources) == 3
    assert all((run / source).is_file() for source in sources)


def test_the_page_asks_for_nothing(tmp_path):
    page = write_report(make_run(tmp_path / "run")).read_text()
    assert re.findall(r"(?:https?:)?//[a-z]|url\(|@import|<script|<link", page) == []
    assert page.count("data:image/webp;base64,") == 3
    assert "prefers-color-scheme: dark" in page


@pytest.mark.parametrize(
    "text",
    ["# no heading", "1. no list", "- no list", "*no* _emphasis_", "[no](link)", "`no code`", "a|b", "<b>", "~~no~~"],
)
def test_plain_text_stays_plain_in_markdown(text):
    shown = Elements(markdown.markdown(plain(text), extensions=["tables"]))
    assert [tag for tag, _ in shown.seen] == ["p"]
    assert "".join(shown.texts) == text


@pytest.mark.parametrize("name", ["report.json", "provenance.json"])
@pytest.mark.parametrize("content", ["{", "[]", '{"networks": 3, "teacher_scores": [], "examples": {}, "teacher": 1}'])
def test_damaged_records_are_said_and_survived(tmp_path, name, content):
    run = make_run(tmp_path / "run")
    (run / name).write_text(content)
    missing = read_content(run).missing
    assert [line.split()[0] for line in missing] == ([name] if content in ("{", "[]") else [])
    assert "<h1>" in write_report(run).read_text()


def test_a_broken_picture_is_left_out(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "pictures" / "generated_00000040.png").write_bytes(b"no picture")
    assert write_report(run).read_text().count("data:image/webp") == 2


def test_only_run_directories(tmp_path):
    with pytest.raises(InputError, match=r"not a run directory of dfad_seg: No such file"):
        write_report(tmp_path)
    (tmp_path / "config.yaml").write_text("a: [")
    with pytest.raises(InputError, match="not a run directory"):
        write_report(tmp_path)


def test_the_tool_rebuilds_a_report_from_disk(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    first = write_report(run).read_text()
    (run / "report.html").unlink()
    assert main(["report", str(run)]) == 0
    assert (run / "report.html").read_text() == first
    assert main(["report", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_evenly():
    assert evenly(list(range(9)), 4) == [0, 3, 5, 8]
    assert evenly([1, 2], 4) == [1, 2]


def test_another_class_set_than_the_teachers_is_no_crash(tmp_path):
    data = {"teacher_scores": {"metrics": {"classes": ["x"], "IoU": [0.5], "mIoU": 0.5}}}
    rows = read_content(make_run(tmp_path / "run", data=data)).classes.rows
    assert [row[0] for row in rows][:3] == CLASSES and rows[0][1:] == ["–", "60.00", "–"]


def test_supervised_runs_have_one_network(tmp_path):
    config = {"method": "supervised", "teacher": CONFIG["teacher"], "evaluation": {"split": "val"}, "iterations": 40}
    record = json.loads(json.dumps(PROVENANCE)) | {"method": "supervised", "teacher": None}
    run = make_run(tmp_path / "run", config=config, provenance=record, data={}, records=[evaluation(40, (1, 1, 1))])
    content = read_content(run)
    assert content.title.startswith("Training on labels")
    assert [row[0] for row in content.networks.rows] == ["teacher"]
    assert content.classes.headers == ["class", "teacher"]
    assert training(1)["train/student_loss"] == 1
