"""Boundary loss: `loss=boundary`."""

from __future__ import annotations

from torch import Tensor

from src.losses.base import SegmentationLoss, classes_of_pixels, ratio
from src.losses.distances import sides


class Boundary(SegmentationLoss):
    """Boundary loss (Kervadec et al. 2019): probabilities weighed by the signed distance to the true outline, in pixels.

    The distance is 1, 2 … outside of a class and 0, -1, -2 … within it, as in the authors' code. The value is the mean of
    distance * (probability - truth) over valid pixels and the classes in the batch's masks: the paper's integral with its
    constant, so a right prediction costs 0; the gradient is the paper's. A class that an image does not show, or shows
    alone, has no outline there and costs nothing, so the paper takes the loss together with a regional one
    (`loss=sum`), with a weight of 0.01 that it raises epoch by epoch; here it stays as it is given.
    """

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        mask = mask.long()
        valid = (mask != self.ignore_index).unsqueeze(1)
        truth = classes_of_pixels(mask, logits.shape[1], self.ignore_index)
        outer, inner = sides(truth, valid)
        distance = outer.sqrt() - (inner.sqrt() - 1).clamp_min(0.0)
        cost = ((logits.float().softmax(1) - truth.float()) * distance).sum((0, 2, 3))
        return mean_of_classes(self, cost, truth, valid)


def mean_of_classes(loss: SegmentationLoss, cost: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Sums of the classes' costs over this device's pixels, float [K], as a mean over the valid pixels of all devices and the
    classes in their masks; `truth`: bool [B, K, H, W], `valid`: bool [B, 1, H, W]."""
    present = loss.over_devices(truth.sum((0, 2, 3))) > 0
    weights = present.float() if loss.class_weights is None else loss.class_weights * present
    total = (loss.over_devices(cost) * weights).sum()
    return ratio(total, weights.sum() * loss.over_devices(valid.sum()))
