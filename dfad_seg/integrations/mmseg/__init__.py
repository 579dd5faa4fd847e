"""MMSegmentation: its networks as teachers and students here, our students and our method there.

Importing this package registers, in MMSegmentation's own registries, `DFADSegmentor`, `DataFreeDistiller`, its losses,
generators and data set, and what a runner needs around them: in a config of theirs,
`custom_imports = dict(imports=["dfad_seg.integrations.mmseg"])`.
"""

from dfad_seg.common.errors import InputError

INSTALL = (
    "pip install --no-deps onedl-mmsegmentation==1.4.2 onedl-mmengine==0.10.12 onedl-mmcv==2.3.6 and then"
    " pip install addict termcolor yapf ftfy regex wcwidth prettytable platformdirs terminaltables"
)

try:
    import mmseg.models  # noqa: F401
except (ImportError, AssertionError) as error:  # MMSegmentation asserts that the versions fit each other
    raise InputError(
        f"MMSegmentation cannot be used here ({type(error).__name__}: {str(error).strip().splitlines()[0]})."
        f" Install it: {INSTALL}. OpenMMLab's own mmsegmentation 1.2.2 serves as well; both have the same import names,"
        " so an environment holds one of the two."
    ) from error

from dfad_seg.integrations.mmseg.distiller import DataFreeDistiller  # noqa: E402
from dfad_seg.integrations.mmseg.export import export_mmseg  # noqa: E402
from dfad_seg.integrations.mmseg.segmentor import DFADSegmentor  # noqa: E402
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
    "export_mmseg",
]
