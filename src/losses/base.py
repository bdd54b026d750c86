"""What the segmentation losses share.

Every one of them takes `logits: float [B, K, H, W]` and `mask: uint8 | int64 [B, H, W]` with values 0..K-1 or
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

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.distributed.sums import sum_over_devices


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


@runtime_checkable
class TakesOutputs(Protocol):
    """A loss that trains on more of a network's outputs than its logits, and says what it does with them."""

    def of_outputs(self, outputs: Mapping[str, Tensor], mask: Tensor) -> Tensor:
        """The loss of a network's outputs in training, a float32 scalar."""
        ...


def loss_of_outputs(loss: nn.Module, outputs: Mapping[str, Tensor], mask: Tensor, aux_weight: float) -> Tensor:
    """The loss of what a network gives in training: of what it asks for, else of the logits, and of auxiliary heads' ("aux",
    "aux2" …), each with `aux_weight`."""
    if isinstance(loss, TakesOutputs):
        return loss.of_outputs(outputs, mask)
    value: Tensor = loss(outputs["logits"], mask)
    for name, logits in outputs.items():
        if name.startswith("aux"):
            value = value + aux_weight * loss(logits, mask)
    return value


def classes_of_pixels(mask: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """bool [B, K, H, W]; an ignored pixel is of no class."""
    classes = torch.arange(num_classes, device=mask.device).view(1, -1, 1, 1)
    return (mask.unsqueeze(1) == classes) & (classes != ignore_index)


def pixel_weights(mask: Tensor, ignore_index: int, class_weights: Tensor | None) -> Tensor:
    """float32 [B, H, W]: the weight of each pixel's class, 0 where ignored."""
    valid = mask != ignore_index
    if class_weights is None:
        return valid.float()
    return class_weights[mask.masked_fill(~valid, 0)] * valid


def ratio(total: Tensor, weight: Tensor) -> Tensor:
    """`total` / `weight`, and `total` (then 0) where nothing has weight."""
    return total / torch.where(weight > 0, weight, 1.0)


def outlines(mask: Tensor, width: int) -> Tensor:
    """Pixels within `width` of a change of value, up or down, left or right: bool [B, H, W] of a mask [B, H, W]."""
    values = mask.float().unsqueeze(1)
    side = 2 * width + 1
    padded = F.pad(values, (width,) * 4, mode="replicate")
    largest, smallest = F.max_pool2d(padded, side, stride=1), -F.max_pool2d(-padded, side, stride=1)
    return (largest != smallest).squeeze(1)
