"""What this installation and this machine are."""

import os
import platform
import signal
import sys
import threading
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dfad_seg import __version__

PACKAGES = (
    *("torch", "torchvision", "lightning-fabric", "segmentation-models-pytorch", "timm", "albumentations"),
    *("opencv-python", "pycocotools", "numpy"),
)
"""Those that results depend on."""

OPTIONAL = ("onnx", "onnxruntime", "onnxscript", "mmsegmentation", "onedl-mmsegmentation", "scikit-learn")
"""Those that an extra brings."""


SPIN_COUNT = "10000"
"""How often a waiting thread looks before it sleeps: next to nothing is lost on a quiet machine, and beside another
busy process a run is several times faster than with libgomp's own default."""


def good_neighbour() -> None:
    """Let waiting OpenMP threads go to sleep soon, and torch's C++ parts leave errors to us, as they show their stack;
    before torch is imported, and unless the user has said otherwise.

    Only libgomp, which torch's Linux builds bring along, knows the variable; other platforms' libraries are left alone.
    """
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if "torch" in sys.modules or {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        return
    spec = find_spec("torch")
    folders = [] if spec is None or spec.origin is None else [Path(spec.origin).parent / "lib"]
    folders += [folder.parent.parent / "torch.libs" for folder in folders]
    if any(True for folder in folders for _ in folder.glob("libgomp*")):
        os.environ["GOMP_SPINCOUNT"] = SPIN_COUNT


def version(package: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def cpu_name() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def environment() -> str:
    """Versions, processor and devices as lines of text, for `--version` and for bug reports."""
    import torch

    lines = [
        f"dfad-seg {__version__} in {Path(__file__).resolve().parent}",
        f"Python {platform.python_version()} on {platform.platform()}",
        f"CPU: {cpu_name()}, {torch.get_num_threads()} threads",
    ]
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    lines.append(f"CUDA {torch.version.cuda or 'not in this build of torch'}; devices: {', '.join(names) or 'none'}")
    lines += [f"{name} {version(name) or 'missing'}" for name in PACKAGES]
    lines += [f"{name} {found}" for name in OPTIONAL if (found := version(name))]
    return "\n".join(lines)


def set_signal(number: int, handler: Any) -> Any:
    """As `signal.signal`; outside the main thread, where Python delivers none, nothing happens."""
    before = signal.getsignal(number)
    if before is not None and handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(number, handler)
    return before
