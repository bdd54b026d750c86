"""Lovász-softmax: `loss=lovasz`."""

from __future__ import annotations

import torch
from torch import Tensor

from src.losses.base import SegmentationLoss, classes_of_pixels, ratio

_BITS_OF_TWO = 0x40000000  # of the float32


class Lovasz(SegmentationLoss):
    """Lovász-softmax loss (Berman et al. 2018): a piecewise linear stand-in for 1 - IoU.

    IoU is taken over the whole batch, not per image, and averaged over the classes in the batch's masks.
    """

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        return lovasz_softmax(logits.float(), mask.long(), self.ignore_index, self.class_weights)


def lovasz_softmax(logits: Tensor, mask: Tensor, ignore_index: int, class_weights: Tensor | None) -> Tensor:
    """Lovász-softmax of `logits`, float32 [B, K, H, W], and `mask`, int64 [B, H, W], mean over its classes.

    One class is sorted at a time, and only its errors and their slopes are kept for the backward pass.
    """
    probability = logits.softmax(1)
    valid = mask != ignore_index
    present = classes_of_pixels(mask, logits.shape[1], ignore_index).sum((0, 2, 3)).nonzero().flatten().tolist()
    total, weight = probability.sum() * 0.0, probability.new_zeros(())
    of_class = probability.unbind(1)  # not indexed one by one: each backward would fill [B, K, H, W]
    for k in present:
        truth = mask == k
        # an ignored pixel's error of 0 comes last and adds nothing
        error = ((truth.float() - of_class[k]).abs() * valid).flatten()
        class_weight = error.new_ones(()) if class_weights is None else class_weights[k]
        total = total + class_weight * (error * _lovasz_gradient(error.detach(), truth.flatten())).sum()
        weight = weight + class_weight
    return ratio(total, weight)


def _lovasz_gradient(error: Tensor, truth: Tensor) -> Tensor:
    """The slope, float [P], of the Jaccard loss's Lovász extension at `error`, float [P]; `truth`: bool [P].

    `truth` must not be all false. By falling error pixel after pixel is taken to be wrong; its slope is what
    that adds to the Jaccard loss, 1 - intersection / union. The differences are written out (subtracting
    neighbours in float32 would leave mostly rounding for millions of pixels), and the sums are of integers,
    so exact, and deterministic on CUDA.
    """
    # Floats in 0..1 are in the order of their bits, and torch sorts integers on a CPU ten times as fast.
    order = (_BITS_OF_TWO - error.view(torch.int32)).sort(stable=True).indices
    positive = truth.gather(0, order)
    missed = positive.cumsum(0, dtype=torch.int64)  # the wrong positives so far: they leave the intersection
    false = torch.arange(1, len(error) + 1, device=error.device) - missed  # and negatives: they join the union
    count = missed[-1]
    union, intersection = (count + false).float(), (count - missed).float()
    slope = torch.where(positive, 1 / union, intersection / ((union - 1).clamp_min(1.0) * union))
    return torch.empty_like(error).scatter_(0, order, slope)
