"""The data-free game in MMSegmentation's own runner.

Importing this package registers, in MMSegmentation's registries, `DataFreeStudent`, `DataFreeLoop`, `GameOptimizers`,
`ExportStudentHook` and `DFADSegmentor`: in a config of theirs,
`custom_imports = dict(imports=["dfad_seg.integrations.mmseg"])`. `configs/mmseg/_base_/data_free.py` has every part.
"""

from dfad_seg.segmentors.mmseg_source import require_mmseg

require_mmseg()

from dfad_seg.exporting.mmseg_model import DFADSegmentor  # noqa: E402
from dfad_seg.integrations.mmseg.loop import DataFreeLoop, ExportStudentHook, GameOptimizers  # noqa: E402
from dfad_seg.integrations.mmseg.student import DataFreeStudent  # noqa: E402
