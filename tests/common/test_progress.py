import pytest

from dfad_seg.common.progress import ProgressReport


def test_plain_lines_with_eta_where_there_is_no_terminal(capsys, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    with ProgressReport("distilling", 100, start=20) as report:
        report.note("student loss 0.5")
        for done, at in ((30, 10.0), (40, 21.0), (60, 70.0)):
            now[0] = 1000.0 + at
            report.advance_to(done)
    begun, *lines, ended = capsys.readouterr().err.splitlines()
    assert begun == "distilling: iteration 20/100, 00:00 spent, ETA ?" and "60/100, 01:10 spent" in ended
    # 10 s is too early for a line.
    assert [line.split(",")[0] for line in lines] == [f"distilling: iteration {done}/100" for done in (40, 60)]
    assert "00:21 spent, ETA 0" in lines[0] and lines[0].endswith(", student loss 0.5")


def test_the_eta_goes_by_what_the_units_cost():
    with ProgressReport("distilling", 4, start=1, costs=[9, 1, 1, 10]) as report:
        report.advance()
        report._bar.start_t -= 100  # seconds of the one unit of cost 1
        found = report._bar.format_dict
    assert (found["total"] - found["n"]) / found["rate"] == pytest.approx(1100, rel=0.01)
