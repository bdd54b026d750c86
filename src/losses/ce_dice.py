"""Cross entropy and soft Dice together: `loss=ce_dice`."""

from __future__ import annotations

from pydantic import NonNegativeFloat
from torch import Tensor

from src.config.shares import Share
from src.losses.base import SegmentationLoss
from src.losses.ce import cross_entropy
from src.losses.dice import dice


class CrossEntropyDice(SegmentationLoss):
    """`ce_weight` * cross entropy + `dice_weight` * Dice; see `CrossEntropy` and `Dice`."""

    def __init__(
        self,
        ce_weight: NonNegativeFloat = 1.0,
        dice_weight: NonNegativeFloat = 1.0,
        label_smoothing: Share = 0.0,
        smooth: NonNegativeFloat = 1.0,
        ignore_index: int = 255,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__(ignore_index, class_weights)
        self.ce_weight = ce_weight
        self.dice_weight = dice_weight
        self.label_smoothing = label_smoothing
        self.smooth = smooth

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        logits, mask = logits.float(), mask.long()
        ce = cross_entropy(logits, mask, self.ignore_index, self.class_weights, self.label_smoothing, self.over_devices)
        return self.ce_weight * ce + self.dice_weight * dice(
            logits, mask, self.ignore_index, self.class_weights, self.smooth, self.over_devices
        )
