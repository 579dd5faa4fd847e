"""One flat, validated config per experiment, composed of what the layers declare.

All mistakes in a file are reported together, each with its key and, for a misspelt key, the nearest known one.
"""

from dfad_seg.config.experiment import METHODS, Config, GameConfig, RealImages
from dfad_seg.config.reading import (
    apply_override,
    dump_config,
    find_config,
    list_configs,
    load_config,
    parse_config,
    shipped_configs,
)
