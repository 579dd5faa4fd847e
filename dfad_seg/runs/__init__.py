"""What a run leaves behind: its directory, checkpoints, metrics, pictures, and the progress on the way."""

from dfad_seg.runs.directory import RunDirectory, checkpoints, read_checkpoint, read_events, read_metrics
from dfad_seg.runs.progress import ProgressReport

__all__ = ["ProgressReport", "RunDirectory", "checkpoints", "read_checkpoint", "read_events", "read_metrics"]
