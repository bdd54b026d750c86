"""Metrics of connectedness, for thin, ring-shaped and branching things: `metrics=topology`.

mIoU counts pixels, so that a broken vessel or a ring with a gap costs next to nothing. These count what is broken. Both look
at each class alone, as a binary image whose ignored pixels belong to no class, and both sum integers over images, so that
they are exact on any number of devices. They need scikit-image: `pip install -e ".[topology]"`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import PositiveInt
from torch import Tensor
from torchmetrics import Metric

from src.optional_packages import needs

Binary = npt.NDArray[np.bool_]


class ClDice(Metric):
    """Centreline Dice of each class (Shit et al. 2021), float64 [K] in 0…1; NaN of a class that is nowhere.

    The harmonic mean of two shares over all images of the split: that of the prediction's skeleton which lies in the truth,
    and that of the truth's skeleton which lies in the prediction. Skeletons are those of Zhang and Suen (1984).

    Args:
        num_classes, ignore_index: the data's; the program gives them.
    """

    higher_is_better = True
    inside: Tensor
    skeleton: Tensor

    def __init__(self, num_classes: int, ignore_index: int) -> None:
        super().__init__()
        needs("skimage", "topology")
        self.num_classes, self.ignore_index = num_classes, ignore_index
        for name in ("inside", "skeleton"):  # of the prediction's and of the truth's skeletons
            self.add_state(name, torch.zeros(2, num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, mask: Tensor) -> None:
        """Adds predicted and true classes, int64 [B, H, W]."""
        skeletonize = needs("skimage.morphology", "topology").skeletonize
        for k, given, truth in binaries(prediction, mask, self.num_classes, self.ignore_index):
            for row, (one, other) in enumerate(((given, truth), (truth, given))):
                thin = skeletonize(one)
                self.inside[row, k] += int((thin & other).sum())
                self.skeleton[row, k] += int(thin.sum())

    def compute(self) -> Tensor:
        shares = self.inside.double() / self.skeleton  # NaN of no skeleton
        both = self.inside.sum(0) > 0
        score = 2 * shares[0] * shares[1] / (shares[0] + shares[1])
        return torch.where(both, score, torch.where(self.skeleton.sum(0) > 0, 0.0, torch.nan))


class BettiError(Metric):
    """By how many pieces, or holes, a prediction is wrong in an image: the mean difference of Betti numbers (Hu et al. 2019).

    Of each class float64 [K], over the images that have it in the truth or in the prediction; NaN of a class that is nowhere.
    Pieces touch by edges or corners, holes by edges.

    Args:
        num_classes, ignore_index: the data's; the program gives them.
        dimension: 0 counts connected pieces, 1 holes.
        smallest: pieces (and holes) of fewer pixels are not counted, in either image.
    """

    higher_is_better = False
    difference: Tensor
    images: Tensor

    def __init__(
        self, num_classes: int, ignore_index: int, dimension: Literal[0, 1] = 0, smallest: PositiveInt = 1
    ) -> None:
        super().__init__()
        needs("skimage", "topology")
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.dimension, self.smallest = dimension, smallest
        for name in ("difference", "images"):
            self.add_state(name, torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, mask: Tensor) -> None:
        """Adds predicted and true classes, int64 [B, H, W]."""
        count = pieces if self.dimension == 0 else holes
        for k, given, truth in binaries(prediction, mask, self.num_classes, self.ignore_index):
            self.difference[k] += abs(count(given, self.smallest) - count(truth, self.smallest))
            self.images[k] += 1

    def compute(self) -> Tensor:
        return self.difference.double() / self.images


def binaries(
    prediction: Tensor, mask: Tensor, num_classes: int, ignore_index: int
) -> Iterator[tuple[int, Binary, Binary]]:
    """Each class of each image that has it: its number, where it was predicted and where it is, bool [H, W]."""
    for given, truth in zip(prediction.cpu().numpy(), mask.cpu().numpy(), strict=True):
        known = truth != ignore_index
        for k in range(num_classes):
            predicted, there = (given == k) & known, truth == k
            if predicted.any() or there.any():
                yield k, predicted, there


def pieces(region: Binary, smallest: int = 1) -> int:
    """How many connected pieces a region has, corners counted as touching."""
    labels = needs("skimage.measure", "topology").label(region, connectivity=2)
    return int((np.bincount(labels.ravel())[1:] >= smallest).sum())


def holes(region: Binary, smallest: int = 1) -> int:
    """How many holes a region has: pieces of the rest, touching by edges, that do not reach the image's border."""
    rest = np.pad(~region, 1, constant_values=True)
    labels = needs("skimage.measure", "topology").label(rest, connectivity=1)
    sizes = np.bincount(labels.ravel())[1:]
    return int((sizes >= smallest).sum()) - int(sizes[labels[0, 0] - 1] >= smallest)
