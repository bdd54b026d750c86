"""Cross entropy over hard pixels only: `loss=ohem`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from src.config.shares import Share
from src.losses.base import SegmentationLoss, pixel_weights, ratio


class Ohem(SegmentationLoss):
    """Cross entropy over hard pixels only (Wu et al. 2016, after Shrivastava et al. 2016).

    Args:
        threshold: pixels whose true class has a probability below it are hard.
        min_kept: at least this share of the batch's valid pixels is kept, the hardest first, ties included.
    """

    def __init__(
        self,
        threshold: Share = 0.7,
        min_kept: Share = 0.0625,
        ignore_index: int = 255,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__(ignore_index, class_weights)
        self.threshold = threshold
        self.min_kept = min_kept

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        mask = mask.long()
        loss = F.cross_entropy(logits.float(), mask, ignore_index=self.ignore_index, reduction="none")
        weights = pixel_weights(mask, self.ignore_index, self.class_weights) * self._hard(loss.detach(), mask)
        return ratio(self.over_devices((loss * weights).sum()), self.over_devices(weights.sum()))

    def _hard(self, loss: Tensor, mask: Tensor) -> Tensor:
        """Which pixels are kept, bool [B, H, W], of `loss`, float [B, H, W]; never waits for the device."""
        valid = mask != self.ignore_index
        probability = torch.where(valid, torch.exp(-loss), torch.inf)
        kept = (valid.sum() * self.min_kept).ceil().long()
        ascending = probability.flatten().sort().values
        limit = torch.where(kept > 0, ascending[kept.clamp(1, len(ascending)) - 1], -torch.inf)
        return valid & ((probability < self.threshold) | (probability <= limit))
