"""Segmentation losses: what is wrong with the logits of a batch, as one number.

Every loss here takes `logits: float [B, K, H, W]` and `mask: uint8 | int64 [B, H, W]` with values 0..K-1 or
`ignore_index`, and gives a float32 scalar, computed in float32 whatever the logits' dtype. Ignored pixels
change neither the value nor a gradient; a batch of nothing else costs exactly 0, and its gradients are 0.

While training on several devices, sums over pixels are sums over the global batch: the loss, and the gradients that DDP
then averages, are those of one device that sees it whole, however the ignored pixels are spread. Lovász sorts, and OHEM
picks its pixels, on each device.

`class_weights: float [K]` weighs pixels by their true class (cross entropy, focal, OHEM: a weighted mean, as
torch's) or the classes' own losses (Dice, Lovász). smp's losses do not serve here: its Dice divides by absent
classes too, its focal loss is K sigmoids, its Lovász loss takes no class weights, and the latter two give NaN
or no scalar where all pixels are ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor, nn
from torch.nn import functional as F

from src.distributed.sums import of_this_device, sum_over_devices

Share = Annotated[float, Field(ge=0, le=1)]
_BITS_OF_TWO = 0x40000000  # of the float32


class SegmentationLoss(nn.Module):
    """What every loss keeps: the mask value to ignore; the class weights, float [K] or None, never saved."""

    class_weights: Tensor | None

    def __init__(self, ignore_index: int = 255, class_weights: Tensor | None = None) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        weights = None if class_weights is None else class_weights.detach().float()
        self.register_buffer("class_weights", weights, persistent=False)

    def over_devices(self, local: Tensor) -> Tensor:
        """The sum of every device's `local` while training on several; `local` itself otherwise (devices may evaluate
        different numbers of batches)."""
        return sum_over_devices(local) if self.training else local


class CrossEntropy(SegmentationLoss):
    """Mean cross entropy over valid pixels; equals `torch.nn.CrossEntropyLoss` wherever that is defined.

    Args:
        label_smoothing: the share of the target that is spread over all classes (Szegedy et al. 2016).
    """

    def __init__(
        self, label_smoothing: Share = 0.0, ignore_index: int = 255, class_weights: Tensor | None = None
    ) -> None:
        super().__init__(ignore_index, class_weights)
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        return cross_entropy(
            logits.float(), mask.long(), self.ignore_index, self.class_weights, self.label_smoothing, self.over_devices
        )


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


class Focal(SegmentationLoss):
    """Focal loss over the softmax (Lin et al. 2017): cross entropy in which a pixel counts (1 - p)^gamma.

    p is the probability of the true class; the class weights are the paper's alpha; gamma 0 is cross entropy.
    """

    def __init__(
        self, gamma: NonNegativeFloat = 2.0, ignore_index: int = 255, class_weights: Tensor | None = None
    ) -> None:
        super().__init__(ignore_index, class_weights)
        self.gamma = gamma

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        mask = mask.long()
        loss = F.cross_entropy(logits.float(), mask, ignore_index=self.ignore_index, reduction="none")
        # 1 - p, exact for p near 1; the floor keeps the slope finite there when gamma < 1
        doubt = (-torch.expm1(-loss)).clamp_min(1e-7)
        weights = _pixel_weights(mask, self.ignore_index, self.class_weights)
        total = (doubt**self.gamma * loss * weights).sum()
        return ratio(self.over_devices(total), self.over_devices(weights.sum()))


class Lovasz(SegmentationLoss):
    """Lovász-softmax loss (Berman et al. 2018): a piecewise linear stand-in for 1 - IoU.

    IoU is taken over the whole batch, not per image, and averaged over the classes in the batch's masks.
    """

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        return lovasz_softmax(logits.float(), mask.long(), self.ignore_index, self.class_weights)


class CrossEntropyLovasz(SegmentationLoss):
    """`ce_weight` * cross entropy + `lovasz_weight` * Lovász-softmax; see `CrossEntropy` and `Lovasz`."""

    def __init__(
        self,
        ce_weight: NonNegativeFloat = 1.0,
        lovasz_weight: NonNegativeFloat = 1.0,
        label_smoothing: Share = 0.0,
        ignore_index: int = 255,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__(ignore_index, class_weights)
        self.ce_weight = ce_weight
        self.lovasz_weight = lovasz_weight
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        logits, mask = logits.float(), mask.long()
        ce = cross_entropy(logits, mask, self.ignore_index, self.class_weights, self.label_smoothing, self.over_devices)
        lovasz = lovasz_softmax(logits, mask, self.ignore_index, self.class_weights)
        return self.ce_weight * ce + self.lovasz_weight * lovasz


class Ohem(SegmentationLoss):
    """Cross entropy over hard pixels only (Wu et al. 2016, after Shrivastava et al. 2016).

    Args:
        threshold: pixels whose true class has a probability below it are hard.
        min_kept: at least this share of the batch's valid pixels is kept, the hardest first, ties included.
    """

    def __init__(
        self,
        threshold: Share = 0.7,
        min_kept: Share = 0.0625,
        ignore_index: int = 255,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__(ignore_index, class_weights)
        self.threshold = threshold
        self.min_kept = min_kept

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        mask = mask.long()
        loss = F.cross_entropy(logits.float(), mask, ignore_index=self.ignore_index, reduction="none")
        weights = _pixel_weights(mask, self.ignore_index, self.class_weights) * self._hard(loss.detach(), mask)
        return ratio(self.over_devices((loss * weights).sum()), self.over_devices(weights.sum()))

    def _hard(self, loss: Tensor, mask: Tensor) -> Tensor:
        """Which pixels are kept, bool [B, H, W], of `loss`, float [B, H, W]; never waits for the device."""
        valid = mask != self.ignore_index
        probability = torch.where(valid, torch.exp(-loss), torch.inf)
        kept = (valid.sum() * self.min_kept).ceil().long()
        ascending = probability.flatten().sort().values
        limit = torch.where(kept > 0, ascending[kept.clamp(1, len(ascending)) - 1], -torch.inf)
        return valid & ((probability < self.threshold) | (probability <= limit))


def cross_entropy(
    logits: Tensor,
    mask: Tensor,
    ignore_index: int,
    class_weights: Tensor | None,
    label_smoothing: float = 0.0,
    over_devices: Callable[[Tensor], Tensor] = of_this_device,
) -> Tensor:
    """Cross entropy of `logits`, float32 [B, K, H, W], to `mask`, int64 [B, H, W], mean of valid pixels."""
    # Not summed by torch: its mean over nothing is NaN, and nondeterministic on CUDA.
    loss = F.cross_entropy(
        logits,
        mask,
        class_weights,
        reduction="none",
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
    )
    weight = _pixel_weights(mask, ignore_index, class_weights).sum()
    return ratio(over_devices(loss.sum()), over_devices(weight))


def dice(
    logits: Tensor,
    mask: Tensor,
    ignore_index: int,
    class_weights: Tensor | None,
    smooth: float = 1.0,
    over_devices: Callable[[Tensor], Tensor] = of_this_device,
) -> Tensor:
    """1 - soft Dice of `logits`, float32 [B, K, H, W], and `mask`, int64 [B, H, W], mean over its classes."""
    truth = _one_hot(mask, logits.shape[1], ignore_index)
    probability = logits.softmax(1) * (mask != ignore_index).unsqueeze(1)
    pixels = (0, 2, 3)
    count = over_devices(truth.sum(pixels))
    overlap = over_devices((probability * truth).sum(pixels))
    # of a class in the mask the denominator is at least 1; the floor is for those that do not count
    score = (2 * overlap + smooth) / (over_devices(probability.sum(pixels)) + count + smooth).clamp_min(1.0)
    weights = (count > 0).float() if class_weights is None else class_weights * (count > 0)
    return ratio(((1 - score) * weights).sum(), weights.sum())


def lovasz_softmax(logits: Tensor, mask: Tensor, ignore_index: int, class_weights: Tensor | None) -> Tensor:
    """Lovász-softmax of `logits`, float32 [B, K, H, W], and `mask`, int64 [B, H, W], mean over its classes.

    One class is sorted at a time, and only its errors and their slopes are kept for the backward pass.
    """
    probability = logits.softmax(1)
    valid = mask != ignore_index
    present = _one_hot(mask, logits.shape[1], ignore_index).sum((0, 2, 3)).nonzero().flatten().tolist()
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


def _one_hot(mask: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """bool [B, K, H, W]; an ignored pixel is of no class."""
    classes = torch.arange(num_classes, device=mask.device).view(1, -1, 1, 1)
    return (mask.unsqueeze(1) == classes) & (classes != ignore_index)


def _pixel_weights(mask: Tensor, ignore_index: int, class_weights: Tensor | None) -> Tensor:
    """float32 [B, H, W]: the weight of each pixel's class, 0 where ignored."""
    valid = mask != ignore_index
    if class_weights is None:
        return valid.float()
    return class_weights[mask.masked_fill(~valid, 0)] * valid


def ratio(total: Tensor, weight: Tensor) -> Tensor:
    """`total` / `weight`, and `total` (then 0) where nothing has weight."""
    return total / torch.where(weight > 0, weight, 1.0)
