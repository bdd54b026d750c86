"""One confusion matrix over a whole split, and every score from it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from src.metrics.names import DICE_FOREGROUND, background

# Pixels counted at a time: bounds the memory of an update to some hundred MB, whatever the size of a scene.
_CHUNK = 1 << 22


class ConfusionMatrix(Metric):
    """Counts pixels by true class (rows) and predicted class (columns), int64 [K, K], on the device.

    Integer counts add up exactly, so the result depends neither on how the images are cut into batches nor on
    the number of devices (states are summed); nothing in it slows down with deterministic algorithms.

    Args:
        num_classes: K, at most 255.
        ignore_index: true pixels of this value are not counted.
    """

    full_state_update = False
    matrix: Tensor

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.add_state("matrix", torch.zeros(num_classes, num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, mask: Tensor) -> None:
        """Adds the pixels of a batch.

        Args:
            prediction: any integer dtype, [B, H, W], 0..K-1; what it is at ignored pixels does not matter.
            mask: any integer dtype, [B, H, W], 0..K-1 or `ignore_index`.

        Raises:
            ValueError: the shapes differ, or a value is no class.
        """
        if prediction.shape != mask.shape:
            raise ValueError(f"prediction is {tuple(prediction.shape)}, mask {tuple(mask.shape)}")
        predicted, true = prediction.flatten(), mask.flatten()
        for start in range(0, len(true), _CHUNK):
            part = slice(start, start + _CHUNK)
            self.matrix += self._count(predicted[part].int(), true[part].int())

    def compute(self) -> Tensor:
        """The matrix, int64 [K, K]; `scores` turns it into shares."""
        return self.matrix

    def _count(self, predicted: Tensor, true: Tensor) -> Tensor:
        k = self.num_classes
        void, invalid = k * k, k * k + 1
        known = (true >= 0) & (true < k) & (predicted >= 0) & (predicted < k)
        cell = torch.where(known, true * k + predicted, invalid)
        cell = torch.where(true == self.ignore_index, void, cell)
        # without weights bincount is deterministic, and much faster than scattering
        counts = torch.bincount(cell, minlength=invalid + 1)
        if counts[invalid]:
            raise ValueError(f"a mask or prediction has values beyond 0..{k - 1} and {self.ignore_index}")
        return counts[:void].view(k, k)


def scores(matrix: Tensor, names: Sequence[str]) -> dict[str, float]:
    """All scores, each in 0..1, in float64, from a confusion matrix with true classes as rows.

    Classes that neither truth nor prediction has do not count, and have no `iou/<name>`. There is never a
    NaN: without any pixel every score is 0.

    Args:
        matrix: int64 [K, K], on any device.
        names: the K class names.

    Returns:
        - `miou`: mean IoU (Jaccard index) over classes; `iou/<name>`: that of one class.
        - `mean_accuracy`: mean recall over the classes that the truth has.
        - `pixel_accuracy`: share of pixels that are right.
        - `dice`: mean Dice (F1) over classes, a background included.
        - `dice_foreground`: the same without the background class; only where one is called so and another one occurs.
        - `fw_iou`: IoU weighted by the classes' shares of the true pixels.

    Raises:
        ValueError: the matrix is not as large as there are names.
    """
    if matrix.shape != (len(names), len(names)):
        raise ValueError(f"the matrix is {tuple(matrix.shape)} for {len(names)} class names")
    counts = matrix.cpu().double()
    right, true, predicted = counts.diag(), counts.sum(1), counts.sum(0)
    present = true + predicted > 0
    # where a denominator is 0 so is the numerator
    iou = right / (true + predicted - right).clamp_min(1)
    dice = 2 * right / (true + predicted).clamp_min(1)
    recall = right / true.clamp_min(1)
    total = true.sum().clamp_min(1)
    result = {
        "miou": _mean(iou[present]),
        "mean_accuracy": _mean(recall[true > 0]),
        "pixel_accuracy": float(right.sum() / total),
        "dice": _mean(dice[present]),
        "fw_iou": float((iou * true).sum() / total),
    }
    if (rest := background(names)) is not None:
        shown = present.clone()
        shown[rest] = False
        if shown.any():
            result[DICE_FOREGROUND] = _mean(dice[shown])
    for name, value, counted in zip(names, iou.tolist(), present.tolist(), strict=True):
        if counted:
            result[f"iou/{name}"] = value
    return result


def _mean(values: Tensor) -> float:
    return float(values.mean()) if len(values) else 0.0
