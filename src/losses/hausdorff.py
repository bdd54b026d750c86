"""Hausdorff-distance loss: `loss=hausdorff`."""

from __future__ import annotations

from pydantic import PositiveFloat
from torch import Tensor

from src.losses.base import SegmentationLoss, classes_of_pixels
from src.losses.boundary import mean_of_classes
from src.losses.distances import sides


class Hausdorff(SegmentationLoss):
    """The Hausdorff-distance loss by distance transforms (Karimi and Salcudean 2019).

    (probability - truth)^2 * (d_predicted^alpha + d_true^alpha), where d is a pixel's distance to the outline of the
    predicted (probability above 0.5) and of the true region, in pixels; the mean over valid pixels and the classes in the
    batch's masks. Distances have no gradient. It is large where a region is far off, some hundreds: the paper takes it
    together with Dice (`loss=sum`) and weighs it so that both are equal at the start of each epoch; here its weight stays.

    Args:
        alpha: power of the distances; 2 in the paper.
    """

    def __init__(
        self, alpha: PositiveFloat = 2.0, ignore_index: int = 255, class_weights: Tensor | None = None
    ) -> None:
        super().__init__(ignore_index, class_weights)
        self.alpha = alpha

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        mask = mask.long()
        valid = (mask != self.ignore_index).unsqueeze(1)
        truth = classes_of_pixels(mask, logits.shape[1], self.ignore_index)
        probability = logits.float().softmax(1)
        weight = self._far(truth, valid) + self._far(probability.detach() > 0.5, valid)
        cost = ((probability - truth.float()).square() * weight).sum((0, 2, 3))
        return mean_of_classes(self, cost, truth, valid)

    def _far(self, region: Tensor, valid: Tensor) -> Tensor:
        """Distances to a region's outline to the power of alpha, float32 [B, K, H, W]; 0 where it has none."""
        outer, inner = sides(region, valid)
        far: Tensor = (outer + inner) ** (self.alpha / 2)
        return far
