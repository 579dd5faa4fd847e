"""Source `mmseg`: networks of MMSegmentation. What needs its packages is in `mmseg_networks`, imported late."""

import importlib
from typing import Any

from dfad_seg.common.errors import explained
from dfad_seg.common.values import FileName, options
from dfad_seg.segmentors.kinds import Network, SourceOptions

INSTALL = (
    "pip install --no-deps onedl-mmsegmentation==1.4.2 onedl-mmengine==0.10.12 onedl-mmcv==2.3.6 and then"
    " pip install addict termcolor yapf ftfy regex wcwidth prettytable platformdirs terminaltables"
)


@options
class MmsegOptions(SourceOptions):
    """A network of MMSegmentation, as its config describes it. Nothing is downloaded: pretrained weights in the
    config are left out, and so are auxiliary heads, which only serve training on labels."""

    config: FileName | None = None
    """A config file, or `mmseg::NAME` for one that the installed package brings. A config is Python code, and its
    `custom_imports` are imported."""
    cfg_options: dict[str, Any] | None = None
    """Entries of the config to change, by dotted name: `{"model.decode_head.num_classes": 11}`."""
    model: dict[str, Any] | None = None
    """In place of a config, the `model` entry itself, as a saved network stores it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.config is None) == (self.model is None):
            raise ValueError("it needs the option 'config', the path of an MMSegmentation config")
        if self.model is not None and self.cfg_options:
            raise ValueError("cfg_options change a config, and there is none: change the model's own entries")


def build_mmseg(chosen: MmsegOptions, *, num_classes: int) -> Network:
    """A network whose answer is that of `encode_decode`, with the normalisation and classes of its config."""
    require_mmseg()
    from dfad_seg.segmentors import mmseg_networks

    return mmseg_networks.build(chosen, num_classes=num_classes)


def require_mmseg() -> None:
    """Raises InputError where the packages of MMSegmentation cannot be imported; it says how to install them."""
    advice = (
        f"Install it: {INSTALL}. OpenMMLab's own mmsegmentation 1.2.2 serves as well; both have the same import names,"
        " so an environment holds one of the two."
    )
    with explained("MMSegmentation cannot be used here", advice):  # it asserts that the versions fit each other
        importlib.import_module("mmseg.models")
