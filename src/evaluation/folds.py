"""Cross-validation: the predictions that each run made of its held-out fold, pooled into one score. Imports no torch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from src.errors import UserError
from src.evaluation.matrices import PerImage
from src.evaluation.scores import Interval, data_set_miou, groups_of, intervals, of_classes

FILE = "folds.json"
_SAMPLES = 1000  # of the bootstrap


@dataclass(frozen=True)
class Fold:
    """A fold: the run that held it out, and what that counted of its images."""

    run: str
    images: PerImage

    @property
    def miou(self) -> float:
        return _miou(self.images)


@dataclass(frozen=True)
class Pooled:
    """All folds together.

    Attributes:
        folds: one after the other.
        images: of all of them.
        miou: of the pixels of all images together, with its interval over images.
        per_image: the mean of the images' own mIoU, likewise.
        iou: of each class over all images; NaN of one that is nowhere.
        mean, deviation: of the folds' own mIoU; the sample standard deviation.
    """

    folds: Sequence[Fold]
    images: PerImage
    miou: Interval
    per_image: Interval
    iou: Sequence[float]
    mean: float
    deviation: float

    def plain(self) -> dict[str, Any]:
        """As plain containers: the scores, each fold's run, and which run predicted which image."""
        return {
            "images": len(self.images),
            "pooled": {
                "miou": _number(self.miou.value), "miou_interval": _bounds(self.miou),
                "per_image_miou": _number(self.per_image.value), "per_image_miou_interval": _bounds(self.per_image),
                "iou": {name: _number(value) for name, value in zip(self.images.names, self.iou, strict=True)},
            },
            "folds": {"mean_miou": _number(self.mean), "std_miou": _number(self.deviation), "each": [
                {"k": k, "run": fold.run, "images": len(fold.images), "miou": _number(fold.miou)}
                for k, fold in enumerate(self.folds)
            ]},
            "run_of_image": {name: fold.run for fold in self.folds for name in fold.images.ids},
        }  # fmt: skip


def pooled(folds: Sequence[Fold]) -> Pooled:
    """The folds as one data set.

    Raises:
        UserError: they have other classes, or two of them the same image.
    """
    first = folds[0].images
    run_of: dict[str, str] = {}
    for fold in folds:
        if list(fold.images.names) != list(first.names):
            raise UserError(f"folds: run {fold.run} has other classes than run {folds[0].run}")
        for name in fold.images.ids:
            if name in run_of:
                raise UserError(f"folds: {name} was held out in run {run_of[name]} and in run {fold.run}")
            run_of[name] = fold.run
    parts = [fold.images for fold in folds]
    together = PerImage(
        [name for part in parts for name in part.ids], [whole for part in parts for whole in part.wholes],
        first.names, first.split, np.concatenate([part.right for part in parts]),
        np.concatenate([part.true for part in parts]), np.concatenate([part.predicted for part in parts]),
    )  # fmt: skip
    several = len(set(together.wholes)) > 1
    groups = groups_of(together.ids, together.wholes, None) if several else np.arange(len(together))
    named, _ = intervals(together, groups, _SAMPLES if several else 0, 0)
    each = [fold.miou for fold in folds]
    return Pooled(
        folds, together, named["data_set_miou"], named["per_image_miou"],
        of_classes(*_summed(together))["iou"].tolist(), statistics.fmean(each), statistics.stdev(each),
    )  # fmt: skip


def told(found: Mapping[str, Any]) -> str:
    """What `Pooled.plain` says, in a line."""
    score, folds = found["pooled"], found["folds"]
    low, high = score["miou_interval"]
    span = "" if low is None else f" ({low:.4f} to {high:.4f})"
    return (
        f"{len(folds['each'])} folds: out-of-fold mIoU {score['miou']:.4f}{span} over {found['images']} images, "
        f"{score['per_image_miou']:.4f} per image; by fold {folds['mean_miou']:.4f} ± {folds['std_miou']:.4f}"
    )


def _summed(images: PerImage) -> tuple[Any, Any, Any]:
    return images.right.sum(0), images.true.sum(0), images.predicted.sum(0)


def _miou(images: PerImage) -> float:
    return float(data_set_miou(*_summed(images)))


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _bounds(of: Interval) -> list[float | None]:
    return [_number(of.low), _number(of.high)]
