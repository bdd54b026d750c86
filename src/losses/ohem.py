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
        return self.among(logits, mask, mask != self.ignore_index)

    def among(self, logits: Tensor, mask: Tensor, chosen: Tensor) -> Tensor:
        """The loss of the chosen pixels, bool [B, H, W], of which as many are kept at least as of all valid ones."""
        mask = mask.long()
        valid = mask != self.ignore_index
        loss = F.cross_entropy(logits.float(), mask, ignore_index=self.ignore_index, reduction="none")
        kept = (valid.sum() * self.min_kept).ceil().long()
        hard = self._hard(loss.detach(), chosen & valid, kept)
        weights = pixel_weights(mask, self.ignore_index, self.class_weights) * hard
        return ratio(self.over_devices((loss * weights).sum()), self.over_devices(weights.sum()))

    def _hard(self, loss: Tensor, chosen: Tensor, kept: Tensor) -> Tensor:
        """Which pixels are kept, bool [B, H, W], of `loss`, float [B, H, W]; never waits for the device."""
        probability = torch.where(chosen, torch.exp(-loss), torch.inf)
        ascending = probability.flatten().sort().values
        limit = torch.where(kept > 0, ascending[kept.clamp(1, len(ascending)) - 1], -torch.inf)
        return chosen & ((probability < self.threshold) | (probability <= limit))
