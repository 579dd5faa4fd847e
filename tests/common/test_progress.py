from dfad_seg.common import progress
from dfad_seg.common.progress import ProgressReport


def test_plain_lines_with_eta_where_there_is_no_terminal(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with ProgressReport("distilling", 100, start=20) as report:
        report.note("student loss 0.5")
        for done, at in ((30, 10.0), (40, 21.0), (60, 70.0)):
            now[0] = at
            report.advance_to(done)
    lines = capsys.readouterr().err.splitlines()
    # 10 s is too early for a line; at 21 s 20 of 80 are done: 63 s are left.
    assert lines[0] == "distilling: iteration 40/100, 0:21 spent, ETA 1:03, student loss 0.5"
    assert lines[1] == "distilling: iteration 60/100, 1:10 spent, ETA 1:10, student loss 0.5"
