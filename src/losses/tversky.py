"""Tversky and focal Tversky: `loss=tversky`."""

from __future__ import annotations

from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from src.losses.base import SegmentationLoss, classes_of_pixels, ratio

_LEAST = 1e-7  # keeps the slope finite where nothing is wrong and the exponent is below 1


class Tversky(SegmentationLoss):
    """Tversky loss (Salehi et al. 2017): Dice in which a false positive and a miss cost differently.

    The index is TP / (TP + fp * FP + fn * FN), of soft counts over the whole batch; the loss is the mean of
    (1 - index) ** exponent over the classes in the batch's masks. With fp = fn = 0.5 and exponent 1 it is Dice.

    Args:
        fp: what a false positive counts; 0.3 in the paper.
        fn: what a miss counts; 0.7 in the paper, for things that are small.
        exponent: of the focal Tversky loss (Abraham and Khan 2019; 0.75 there); 1 is the plain one.
        smooth: added to the numerator and the denominator, in pixels.
    """

    def __init__(
        self,
        fp: NonNegativeFloat = 0.3,
        fn: NonNegativeFloat = 0.7,
        exponent: PositiveFloat = 1.0,
        smooth: NonNegativeFloat = 1.0,
        ignore_index: int = 255,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__(ignore_index, class_weights)
        self.fp, self.fn, self.exponent, self.smooth = fp, fn, exponent, smooth

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        logits, mask = logits.float(), mask.long()
        truth = classes_of_pixels(mask, logits.shape[1], self.ignore_index)
        probability = logits.softmax(1) * (mask != self.ignore_index).unsqueeze(1)
        pixels = (0, 2, 3)
        count = self.over_devices(truth.sum(pixels))
        hits = self.over_devices((probability * truth).sum(pixels))
        false = self.over_devices((probability * ~truth).sum(pixels))
        whole = hits + self.fp * false + self.fn * (count - hits) + self.smooth
        # 0 only where a class has no hit and misses cost nothing
        loss = (1 - ratio(hits + self.smooth, whole)).clamp_min(_LEAST) ** self.exponent
        weights = (count > 0).float() if self.class_weights is None else self.class_weights * (count > 0)
        return ratio((loss * weights).sum(), weights.sum())
