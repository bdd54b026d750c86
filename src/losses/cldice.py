"""Soft centreline Dice: `loss=cldice`."""

from __future__ import annotations

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from src.losses.base import SegmentationLoss, classes_of_pixels, ratio


class ClDice(SegmentationLoss):
    """1 - soft clDice (Shit et al. 2021): how much of each centreline lies in the other's region, for vessels, roads, cracks.

    It says nothing of a tube's width: the paper takes it together with soft Dice, as at most half of the sum
    (`loss=sum`). Counts are over the whole batch; the mean is over the classes in its masks. Each iteration
    keeps several maps of the prediction's size for the backward pass.

    Args:
        iterations: of the soft skeleton; half the width of the widest tube, in pixels.
        background: whether class 0 counts too, whose centreline rarely means anything.
        smooth: added to numerators and denominators, in pixels.
    """

    def __init__(
        self,
        iterations: PositiveInt = 3,
        background: bool = False,
        smooth: NonNegativeFloat = 1.0,
        ignore_index: int = 255,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__(ignore_index, class_weights)
        self.iterations, self.background, self.smooth = iterations, background, smooth

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        logits, mask = logits.float(), mask.long()
        first = 0 if self.background else 1
        valid = (mask != self.ignore_index).unsqueeze(1)
        truth = classes_of_pixels(mask, logits.shape[1], self.ignore_index)[:, first:].float()
        probability = logits.softmax(1)[:, first:] * valid
        pixels = (0, 2, 3)
        lines = soft_skeleton(probability, valid, self.iterations)
        with torch.no_grad():
            true_lines = soft_skeleton(truth, valid, self.iterations)
        count = self.over_devices(truth.sum(pixels))
        precision = self._share((lines * truth).sum(pixels), lines.sum(pixels))
        recall = self._share((true_lines * probability).sum(pixels), true_lines.sum(pixels))
        loss = 1 - ratio(2 * precision * recall, precision + recall)
        weights = (count > 0).float() if self.class_weights is None else self.class_weights[first:] * (count > 0)
        return ratio((loss * weights).sum(), weights.sum())

    def _share(self, inside: Tensor, lines: Tensor) -> Tensor:
        return ratio(self.over_devices(inside) + self.smooth, self.over_devices(lines) + self.smooth)


def soft_skeleton(maps: Tensor, valid: Tensor, iterations: int) -> Tensor:
    """Centrelines of soft maps in 0…1, float [B, C, H, W]: what an opening takes away, after each of some erosions.

    Args:
        valid: bool [B, 1, H, W]; other pixels are as if they were beyond the edge.
    """
    skeleton = _taken_by_opening(maps, valid)
    for _ in range(iterations):
        maps = _eroded(maps, valid)
        taken = _taken_by_opening(maps, valid)
        skeleton = skeleton + torch.relu(taken - skeleton * taken)
    return skeleton


def _taken_by_opening(maps: Tensor, valid: Tensor) -> Tensor:
    opened = torch.nn.functional.max_pool2d(_eroded(maps, valid), 3, stride=1, padding=1)
    return torch.relu(maps - opened) * valid


def _eroded(maps: Tensor, valid: Tensor) -> Tensor:
    """The least value of each pixel's cross of five; 0 where a pixel is not valid, so that it grows into no other."""
    # 1 is the greatest value there is, so what is not valid lowers nothing
    negative = -torch.where(valid, maps, 1.0)
    down = torch.nn.functional.max_pool2d(negative, (3, 1), stride=1, padding=(1, 0))
    across = torch.nn.functional.max_pool2d(negative, (1, 3), stride=1, padding=(0, 1))
    return -torch.maximum(down, across) * valid
