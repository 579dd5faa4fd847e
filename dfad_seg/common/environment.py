"""What this installation and this machine are."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

from dfad_seg import __version__

PACKAGES = (
    *("torch", "torchvision", "lightning-fabric", "segmentation-models-pytorch", "timm", "albumentations"),
    *("opencv-python", "pycocotools", "numpy"),
)
"""Those that results depend on."""

OPTIONAL = ("onnx", "onnxruntime", "onnxscript", "mmsegmentation", "onedl-mmsegmentation", "h5py", "scikit-learn")
"""Those that an extra brings."""


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
