"""Soft Dice: `loss=dice`."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import NonNegativeFloat
from torch import Tensor

from src.distributed.sums import of_this_device
from src.losses.base import SegmentationLoss, classes_of_pixels, ratio


class Dice(SegmentationLoss):
    """Soft Dice loss (Milletari et al. 2016): the mean of 1 - Dice over the classes in the batch's masks.

    Dice is taken over the whole batch, not per image. Classes that no mask of the batch has do not count (a
    false positive of theirs is a miss of another class).

    Args:
        smooth: added to the numerator and the denominator, in pixels.
    """

    def __init__(
        self, smooth: NonNegativeFloat = 1.0, ignore_index: int = 255, class_weights: Tensor | None = None
    ) -> None:
        super().__init__(ignore_index, class_weights)
        self.smooth = smooth

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        return dice(logits.float(), mask.long(), self.ignore_index, self.class_weights, self.smooth, self.over_devices)


def dice(
    logits: Tensor,
    mask: Tensor,
    ignore_index: int,
    class_weights: Tensor | None,
    smooth: float = 1.0,
    over_devices: Callable[[Tensor], Tensor] = of_this_device,
) -> Tensor:
    """1 - soft Dice of `logits`, float32 [B, K, H, W], and `mask`, int64 [B, H, W], mean over its classes."""
    truth = classes_of_pixels(mask, logits.shape[1], ignore_index)
    probability = logits.softmax(1) * (mask != ignore_index).unsqueeze(1)
    pixels = (0, 2, 3)
    count = over_devices(truth.sum(pixels))
    overlap = over_devices((probability * truth).sum(pixels))
    # of a class in the mask the denominator is at least 1; the floor is for those that do not count
    score = (2 * overlap + smooth) / (over_devices(probability.sum(pixels)) + count + smooth).clamp_min(1.0)
    weights = (count > 0).float() if class_weights is None else class_weights * (count > 0)
    return ratio(((1 - score) * weights).sum(), weights.sum())
