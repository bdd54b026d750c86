"""Cross entropy and soft Dice together: `loss=ce_dice`."""

from __future__ import annotations

from pydantic import NonNegativeFloat
from torch import Tensor

from src.config.shares import Share
from src.losses.ce import CrossEntropy
from src.losses.dice import Dice
from src.losses.sum import Sum


class CrossEntropyDice(Sum):
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
        ce = CrossEntropy(label_smoothing, ignore_index, class_weights)
        dice = Dice(smooth, ignore_index, class_weights)
        super().__init__([(ce_weight, ce), (dice_weight, dice)], ignore_index, class_weights)
