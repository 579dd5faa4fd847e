"""What a run leaves behind: one reader, one writer, one report, one comparison, and the progress on the way."""

from dfad_seg.runs.checkpoints import checkpoints, read_checkpoint
from dfad_seg.runs.compare import compare_runs
from dfad_seg.runs.directory import START_FILE, RunDirectory, note_evaluation, note_score, update_summary
from dfad_seg.runs.report import write_report
from dfad_seg.runs.run import Run
