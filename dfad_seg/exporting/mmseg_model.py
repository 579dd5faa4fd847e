"""Any segmentor of this package as one of MMSegmentation's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmseg.models import EncoderDecoder
from mmseg.models.segmentors.base import BaseSegmentor
from mmseg.registry import MODELS
from torch import Tensor, nn

from dfad_seg.common.errors import InputError, some
from dfad_seg.segmentors import Segmentor, build_segmentor

# Their readers give BGR in [0, 255]; a Segmentor takes RGB in [0, 1] and normalises by itself.
PREPROCESSOR: dict[str, Any] = {
    "type": "SegDataPreProcessor",
    "mean": [0.0, 0.0, 0.0],
    "std": [255.0, 255.0, 255.0],
    "bgr_to_rgb": True,
    "pad_val": 0,
    "seg_pad_val": 255,
}


@MODELS.register_module()
class DFADSegmentor(EncoderDecoder):
    """A network of smp, timm, torchvision or a factory in MMSegmentation's tools: tests, inference, fine-tuning.

    Whole and sliding inference, test-time augmentation and post-processing are inherited. Checkpoints are loaded
    strictly: MMSegmentation itself would go on with random weights where names do not fit.

    Args:
        segmentor: the network, or the options of `build_segmentor`, with `source` and `num_classes`.
        data_preprocessor: must give RGB in [0, 1]; default: one that does.
        train_cfg, pretrained: taken, as their tools set them, and without effect.
    """

    def __init__(
        self,
        segmentor: Segmentor | Mapping[str, Any],
        data_preprocessor: Mapping[str, Any] | None = None,
        train_cfg: Any = None,
        test_cfg: Any = None,
        pretrained: None = None,
        ignore_index: int = 255,
        init_cfg: Any = None,
    ) -> None:
        # Past EncoderDecoder's constructor, which builds a backbone and heads.
        BaseSegmentor.__init__(self, data_preprocessor=dict(data_preprocessor or PREPROCESSOR), init_cfg=init_cfg)
        self.segmentor = segmentor if isinstance(segmentor, Segmentor) else build_segmentor(**plain(segmentor))
        self.num_classes = self.out_channels = self.segmentor.num_classes
        self.align_corners = False
        self.ignore_index = ignore_index
        self.train_cfg = train_cfg
        self.test_cfg = ConfigDict(test_cfg or {"mode": "whole"})
        self.register_load_state_dict_pre_hook(_check_names)

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict] | None = None) -> Tensor:
        """Logits (N, C, H, W) of RGB images (N, 3, H, W) in [0, 1]."""
        return self.segmentor(inputs)

    def loss(self, inputs: Tensor, data_samples: Any) -> dict[str, Tensor]:
        """Cross-entropy against labels, and the share of right pixels in per cent."""
        logits = self.segmentor(inputs)
        labels = torch.stack([sample.gt_sem_seg.data.squeeze(0).long() for sample in data_samples])
        right = (logits.argmax(dim=1) == labels)[labels != self.ignore_index].float()
        return {
            "decode.loss_ce": F.cross_entropy(logits, labels, ignore_index=self.ignore_index),
            "decode.acc_seg": 100 * right.sum() / max(1, right.numel()),
        }

    def extract_feat(self, inputs: Tensor) -> Tensor:
        raise InputError("a DFADSegmentor shows no features apart from its logits.")

    def _forward(self, inputs: Tensor, data_samples: Any = None) -> Tensor:
        return self.segmentor(inputs)


def _check_names(module: nn.Module, state_dict: Mapping[str, Tensor], prefix: str, *_: Any) -> None:
    own = {prefix + key for key in module.state_dict()}
    given = {key for key in state_dict if key.startswith(prefix)}
    missing = sorted(key for key in own - given if not key.endswith("num_batches_tracked"))
    unexpected = sorted(given - own)
    if missing or unexpected:
        raise InputError(
            f"the checkpoint does not fit the DFADSegmentor: missing {len(missing)} of {len(own)}"
            f" ({some(missing, 5) or 'none'}), unexpected {len(unexpected)}"
            f" ({some(unexpected, 5) or 'none'}). Take the checkpoint that was exported with this config."
        )


def plain(value: Any) -> Any:
    """Entries of their config, which hands out its own kind of dictionary, as plain values."""
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return (tuple if isinstance(value, tuple) else list)(plain(inner) for inner in value)
    return str(value) if isinstance(value, Path) else value
