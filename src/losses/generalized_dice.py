"""Generalized Dice: `loss=generalized_dice`."""

from __future__ import annotations

from torch import Tensor

from src.losses.base import SegmentationLoss, classes_of_pixels, ratio


class GeneralizedDice(SegmentationLoss):
    """Generalized Dice loss (Sudre et al. 2017): one Dice of all classes, in which each counts 1 / its pixels squared.

    1 - 2 sum_k w_k overlap_k / sum_k w_k (predicted_k + true_k), of soft counts over the whole batch. Classes that no mask
    of the batch has do not count (a false positive of theirs is a miss of another class); class weights multiply w_k.
    """

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        logits, mask = logits.float(), mask.long()
        truth = classes_of_pixels(mask, logits.shape[1], self.ignore_index)
        probability = logits.softmax(1) * (mask != self.ignore_index).unsqueeze(1)
        pixels = (0, 2, 3)
        count = self.over_devices(truth.sum(pixels)).float()
        overlap = self.over_devices((probability * truth).sum(pixels))
        both = self.over_devices(probability.sum(pixels)) + count
        weights = (count > 0) / count.clamp_min(1.0).square()
        if self.class_weights is not None:
            weights = weights * self.class_weights
        return ratio((weights * (both - 2 * overlap)).sum(), (weights * both).sum())
