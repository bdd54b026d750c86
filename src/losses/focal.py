"""Focal loss: `loss=focal`."""

from __future__ import annotations

import torch
from pydantic import NonNegativeFloat
from torch import Tensor
from torch.nn import functional as F

from src.losses.base import SegmentationLoss, pixel_weights, ratio


class Focal(SegmentationLoss):
    """Focal loss over the softmax (Lin et al. 2017): cross entropy in which a pixel counts (1 - p)^gamma.

    p is the probability of the true class; the class weights are the paper's alpha; gamma 0 is cross entropy.
    """

    def __init__(
        self, gamma: NonNegativeFloat = 2.0, ignore_index: int = 255, class_weights: Tensor | None = None
    ) -> None:
        super().__init__(ignore_index, class_weights)
        self.gamma = gamma

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        mask = mask.long()
        loss = F.cross_entropy(logits.float(), mask, ignore_index=self.ignore_index, reduction="none")
        # 1 - p, exact for p near 1; the floor keeps the slope finite there when gamma < 1
        doubt = (-torch.expm1(-loss)).clamp_min(1e-7)
        weights = pixel_weights(mask, self.ignore_index, self.class_weights)
        total = (doubt**self.gamma * loss * weights).sum()
        return ratio(self.over_devices(total), self.over_devices(weights.sum()))
