"""Losses against labels, for teachers and for baselines with data."""

import torch.nn.functional as F
from torch import Tensor


def focal_loss(logits: Tensor, labels: Tensor, *, gamma: float = 2.0, ignore_index: int = 255) -> Tensor:
    """Focal loss, the mean of −(1 − p_t)^γ log p_t over labelled pixels (Lin et al. 2017, eq. 4).

    With γ = 0 it is the cross-entropy.

    Args:
        logits: (N, C, H, W).
        labels: (N, H, W) class ids; `ignore_index` takes no part. All ignored gives 0.
        gamma: focusing exponent, ≥ 0.
    """
    log_p = F.log_softmax(logits.float(), dim=1)
    valid = labels != ignore_index
    target = labels.where(valid, 0)
    log_pt = log_p.gather(1, target.unsqueeze(1)).squeeze(1)
    # Bounded away from 0, where a power below 1 has no derivative.
    per_pixel = -((1 - log_pt.exp()).clamp_min(1e-6) ** gamma) * log_pt if gamma else -log_pt
    return (valid * per_pixel).sum() / valid.sum().clamp_min(1)
