"""A loss of one's own."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from src.losses.base import SegmentationLoss


class Tversky(SegmentationLoss):
    """Tversky loss (Salehi et al. 2017): Dice's, with a price of its own for each kind of error; the mean over classes.

    The program gives `ignore_index` and `class_weights`, which the base class keeps. Sums over pixels go through
    `over_devices`, so that a batch costs the same on any number of devices.

    Args:
        missed: the price of a pixel of a class that is not found; 1 - missed is that of one that is wrongly found.
    """

    def __init__(
        self,
        missed: Annotated[float, Field(ge=0, le=1)] = 0.7,
        ignore_index: int = 255,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__(ignore_index, class_weights)
        self.missed = missed

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """A scalar, of logits float [B, K, H, W] and a mask uint8 or int64 [B, H, W]."""
        valid = mask != self.ignore_index
        share = logits.float().softmax(dim=1) * valid[:, None]
        classes = torch.arange(logits.shape[1], device=mask.device)
        truth = (mask[:, None] == classes[:, None, None]) & valid[:, None]
        sums = [(share * truth).sum((0, 2, 3)), truth.float().sum((0, 2, 3)), share.sum((0, 2, 3))]
        found, there, said = self.over_devices(torch.stack(sums))
        price = self.missed * (there - found) + (1 - self.missed) * (said - found)
        return 1 - ((found + 1) / (found + price + 1)).mean()
