"""MMSegmentation: its networks as teachers and students here, our students and our method there.

Importing this package registers, in MMSegmentation's own registries, `DFADSegmentor`, `DataFreeDistiller`, its losses,
generators and data set, and what a runner needs around them: in a config of theirs,
`custom_imports = dict(imports=["dfad_seg.integrations.mmseg"])`.
"""

from dfad_seg.segmentors.mmseg_source import require_mmseg

require_mmseg()

from dfad_seg.export.mmseg_model import DFADSegmentor  # noqa: E402
from dfad_seg.integrations.mmseg.distiller import DataFreeDistiller  # noqa: E402
from dfad_seg.integrations.mmseg.training import (  # noqa: E402
    DataFreeDistributed,
    ExportStudentHook,
    IterationNumbers,
)

__all__ = [
    "DFADSegmentor",
    "DataFreeDistiller",
    "DataFreeDistributed",
    "ExportStudentHook",
    "IterationNumbers",
]
