"""Cross entropy and Dice together."""

from __future__ import annotations

import torch

from src.losses.ce import CrossEntropy
from src.losses.ce_dice import CrossEntropyDice
from src.losses.dice import Dice
from tests.losses.batches import batch


def test_ce_dice_is_the_weighted_sum() -> None:
    logits, mask = batch()
    weights = torch.tensor([1.0, 0.5, 2.0, 3.0])
    both = CrossEntropyDice(0.3, 2.0, label_smoothing=0.1, smooth=0.0, class_weights=weights)
    ce = CrossEntropy(0.1, class_weights=weights)(logits, mask)
    dice = Dice(0.0, class_weights=weights)(logits, mask)
    torch.testing.assert_close(both(logits, mask), 0.3 * ce + 2.0 * dice)
