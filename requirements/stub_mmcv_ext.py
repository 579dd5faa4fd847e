"""Give mmcv-lite a stand-in for the compiled operators that it lacks, so that MMSegmentation can be imported.

    python requirements/stub_mmcv_ext.py

Networks that use such an operator fail when they call it. A complete mmcv is left alone.
"""

from __future__ import annotations

import importlib
from pathlib import Path

STUB = '''"""Stands for the compiled operators that mmcv-lite does not have."""


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)

    def missing(*args, **kwargs):
        raise RuntimeError(f"mmcv-lite has no compiled operator {name}; install the complete mmcv")

    return missing
'''


def main() -> None:
    """Write `mmcv/_ext.py` where mmcv wants that module and does not have it."""
    import mmcv

    try:
        importlib.import_module("mmcv.ops")
    except ModuleNotFoundError as error:
        if error.name != "mmcv._ext":
            raise
        (Path(mmcv.__file__).parent / "_ext.py").write_text(STUB)


if __name__ == "__main__":
    main()
