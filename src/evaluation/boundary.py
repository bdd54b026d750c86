"""How good a prediction is at the boundaries of the truth: boundary IoU and trimap curves, exact on any number of devices."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

WIDTHS = (1, 2, 3, 5, 8, 12, 20, 32)  # pixels to each side of a boundary, of a trimap curve
RATIO = 0.02  # of an image's diagonal: how thick the boundary of boundary IoU is


def thickness(height: int, width: int, ratio: float) -> int:
    """Pixels that a boundary is thick, at least 1: `ratio` of the diagonal, rounded as Python does."""
    return max(1, round(ratio * math.sqrt(height**2 + width**2)))


def window_sums(values: Tensor, reach: int) -> Tensor:
    """Of each pixel the sum over the square that reaches `reach` pixels from it, in each direction: int32 [..., H, W] of bool
    or integers. Beyond the border there are zeros. The time does not depend on `reach`."""
    total = values.int()
    for dimension in (-1, -2):
        total = total.movedim(dimension, -1)
        length = total.shape[-1]
        running = F.pad(total.cumsum(-1, dtype=torch.int32), (1, 0))
        at = torch.arange(length, device=values.device)
        high, low = (at + reach + 1).clamp_max(length), (at - reach).clamp_min(0)
        total = (running[..., high] - running[..., low]).movedim(-1, dimension)
    return total


def inner_boundary(region: Tensor, reach: int) -> Tensor:
    """The pixels of a region that `reach` erosions by a 3x3 square take away, bool [..., H, W]; what lies beyond the image is
    no part of it, so that a region cut by the border has a boundary there (as the authors' code of boundary IoU has it)."""
    return region & (window_sums(region, reach) < (2 * reach + 1) ** 2)


class Boundaries:
    """Adds up images for boundary IoU (Cheng et al. 2021) and trimap curves (Kohli et al. 2009).

    Ignored pixels are of no class, in the truth and in the prediction, so that an edge to them is a boundary in both. Without
    any, each class of an image is scored as the authors' code does a pair of masks.

    Args:
        num_classes, ignore_index: the data's.
        ratio: thickness of the boundary, of an image's diagonal.
        widths: of the bands about the truth's boundaries, in pixels to each side. A pixel lies within w where a change of the
            mask's value, up or down, left or right, is w steps away or fewer, diagonal ones included. A change to ignored
            pixels is one, since void bands lie on boundaries; ignored pixels themselves do not count.
    """

    def __init__(self, num_classes: int, ignore_index: int, ratio: float, widths: Sequence[int] = WIDTHS) -> None:
        self.num_classes, self.ignore_index, self.ratio, self.widths = num_classes, ignore_index, ratio, tuple(widths)
        self._shared = torch.zeros(num_classes, dtype=torch.int64)
        self._either = torch.zeros(num_classes, dtype=torch.int64)
        self._bands = torch.zeros(len(self.widths), num_classes, num_classes, dtype=torch.int64)

    def add(self, prediction: Tensor, mask: Tensor) -> None:
        """Adds one image: predicted and true classes, integers [H, W], on one device."""
        known = mask != self.ignore_index
        given = torch.where(known, prediction.long(), self.ignore_index)
        truth = mask.long()
        reach = thickness(mask.shape[-2], mask.shape[-1], self.ratio)
        there = torch.unique(torch.cat([given[known], truth[known]]))
        for k in there.tolist():  # one at a time, which bounds the memory
            ours, theirs = inner_boundary(given == k, reach), inner_boundary(truth == k, reach)
            self._shared[k] += int((ours & theirs).sum())
            self._either[k] += int((ours | theirs).sum())
        edge, k_all = class_changes(truth), self.num_classes
        for at, width in enumerate(self.widths):
            band = known & (window_sums(edge, width - 1) > 0)
            cells = torch.bincount(truth[band] * k_all + given[band], minlength=k_all**2)
            self._bands[at] += cells.view(k_all, k_all).cpu()

    def finish(self) -> tuple[Tensor, Tensor, Tensor]:
        """Over all devices, each of which has to call it: of each class the pixels that both boundaries share and those in
        either, int64 [K]; and the confusion matrix of each band, int64 [widths, K, K]."""
        parts = [self._shared, self._either, self._bands]
        if dist.is_initialized() and dist.get_world_size() > 1:
            every: list[list[Tensor]] = [[] for _ in range(dist.get_world_size())]
            dist.all_gather_object(every, parts)
            parts = [torch.stack(column).sum(0) for column in zip(*every, strict=True)]
        return parts[0], parts[1], parts[2]


def class_changes(truth: Tensor) -> Tensor:
    """The pixels on either side of a change of value, up or down, left or right: bool [H, W] of true classes [H, W]."""
    edge = torch.zeros_like(truth, dtype=torch.bool)
    down, across = truth[1:] != truth[:-1], truth[:, 1:] != truth[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    return edge
