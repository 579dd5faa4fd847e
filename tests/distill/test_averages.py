"""The moving average of the student among several processes."""

from test_loops import play


def test_processes_exchange_nothing_that_lies_elsewhere(monkeypatch):
    """The counter of the moving average stays on the CPU, and the processes of GPUs cannot send it from there."""
    sent = []
    monkeypatch.setattr("dfad_seg.distill.training.broadcast_buffers", lambda fabric, *networks: sent.extend(networks))
    play(iterations=1, ema_decay=0.5)
    names = {name for network in sent for name, _ in network.named_buffers()}
    assert len(sent) == 3 and "n_averaged" not in names and any("running_mean" in name for name in names)
