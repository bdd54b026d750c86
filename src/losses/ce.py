"""Cross entropy: `loss=ce`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from src.config.shares import Share
from src.distributed.sums import of_this_device
from src.losses.base import SegmentationLoss, pixel_weights, ratio


class CrossEntropy(SegmentationLoss):
    """Mean cross entropy over valid pixels; equals `torch.nn.CrossEntropyLoss` wherever that is defined.

    Args:
        label_smoothing: the share of the target that is spread over all classes (Szegedy et al. 2016).
        count_ignored: ignored pixels count in the mean, with a loss of 0, as mmsegmentation has it unless told otherwise.
    """

    def __init__(
        self,
        label_smoothing: Share = 0.0,
        ignore_index: int = 255,
        class_weights: Tensor | None = None,
        count_ignored: bool = False,
    ) -> None:
        super().__init__(ignore_index, class_weights)
        self.label_smoothing = label_smoothing
        self.count_ignored = count_ignored

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        mask = mask.long()
        loss = cross_entropy(
            logits.float(), mask, self.ignore_index, self.class_weights, self.label_smoothing, self.over_devices
        )
        if not self.count_ignored:
            return loss
        valid = self.over_devices((mask != self.ignore_index).sum().float())
        return loss * ratio(valid, self.over_devices(torch.full_like(valid, mask.numel())))


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
    weight = pixel_weights(mask, ignore_index, class_weights).sum()
    return ratio(over_devices(loss.sum()), over_devices(weight))
