"""Scores of a split from the counts of its images, and how sure they are. Imports no torch.

Two means go by one name in the literature, and either is called wrong by who expects the other: the IoU of a class over the
pixels of all images together (`data_set`, the benchmark's mIoU), and the mean over images of each image's own (`per_image`).
Both stand here, named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from src.errors import UserError
from src.evaluation.matrices import PerImage

Values = npt.NDArray[np.float64]
Number = npt.NDArray[Any]  # counts, as whole numbers or as floats that are such
_AT_ONCE = 1 << 22  # numbers of a block of resamples
LEVEL = 0.95  # of intervals


@dataclass(frozen=True)
class Interval:
    """A value, and the percentile bootstrap interval about it."""

    value: float
    low: float
    high: float


def of_classes(right: Number, true: Number, predicted: Number) -> dict[str, Values]:
    """`iou`, `dice`, `precision` and `recall` of counts [..., K], float64 [..., K].

    NaN where there is nothing to divide by: IoU and Dice of a class that neither has, precision of one that was not predicted,
    recall of one that is not there.
    """
    either = true + predicted
    return {
        "iou": _ratio(right, either - right), "dice": _ratio(2 * right, either),
        "precision": _ratio(right, predicted), "recall": _ratio(right, true),
    }  # fmt: skip


def data_set_miou(right: Number, true: Number, predicted: Number) -> Values:
    """Mean IoU over the classes that occur, of counts [..., K] of all pixels together: float64 [...]."""
    return mean_of_known(of_classes(right, true, predicted)["iou"])


def per_image_miou(images: PerImage) -> Values:
    """Each image's own mean IoU over the classes that it has, in truth or prediction: float64 [N]; NaN of one without a
    labelled pixel."""
    return mean_of_known(of_classes(images.right, images.true, images.predicted)["iou"])


def groups_of(ids: Sequence[str], wholes: Sequence[str], pattern: str | None) -> npt.NDArray[np.intp]:
    """The number of each image's group, [N]: what is drawn together when the data set is resampled.

    Args:
        pattern: what a group is called is what this finds in an image's name, its first bracket if it has any; None takes the
            volume or scene that an image is cut out of, and an image that is a whole alone.

    Raises:
        UserError: a name does not match, or all images are one group.
    """
    if pattern is None:
        names = list(wholes)
    else:
        try:
            finder = re.compile(pattern)
        except re.error as error:
            raise UserError(f"bootstrap.group: {pattern!r} is no regular expression ({error})") from None
        names = []
        for image in ids:
            if (found := finder.search(image)) is None:
                raise UserError(f"bootstrap.group: {pattern!r} is not found in the name {image!r}; e.g. '^(.*)_'")
            names.append(found[1] if finder.groups and found[1] is not None else found[0])
    numbers: npt.NDArray[np.intp] = np.unique(names, return_inverse=True)[1].astype(np.intp)
    if len(ids) > 1 and not numbers.any():
        what = "bootstrap.group" if pattern is not None else "bootstrap"
        raise UserError(
            f"{what}: all {len(ids)} images are of one group ({names[0]!r}), so nothing can be said of other ones; give a "
            "bootstrap.group that tells them apart, or take bootstrap.samples=0"
        )
    return numbers


def summed(values: Number, groups: npt.NDArray[np.intp]) -> Number:
    """Rows [N, ...] added up by group: [G, ...]."""
    result = np.zeros((int(groups.max(initial=-1)) + 1, *values.shape[1:]), values.dtype)
    np.add.at(result, groups, values)
    return result


def resamples(count: int, samples: int, seed: int, width: int) -> Iterator[Values]:
    """How often each of `count` groups is in each of `samples` data sets that are drawn from them with replacement: blocks
    float64 [s, count].

    Args:
        width: numbers in a row of what is made of them, which bounds a block.
    """
    generator = np.random.default_rng(seed)
    block = max(1, _AT_ONCE // max(count, width, 1))
    for begin in range(0, samples, block):
        rows = min(block, samples - begin)
        drawn = generator.integers(0, count, (rows, count)) + np.arange(rows)[:, None] * count
        # whole numbers as floats: exact to 2**53, and multiplied by BLAS
        yield np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float64)


def intervals(
    images: PerImage, groups: npt.NDArray[np.intp], samples: int, seed: int
) -> tuple[dict[str, Interval], list[Interval]]:
    """95 % percentile bootstrap intervals of both means and of each class's IoU over the data set.

    Returns:
        By name (`data_set_miou`, `per_image_miou`), and for each class; NaN bounds where `samples` is 0.
    """
    counts = [summed(part.astype(np.float64), groups) for part in (images.right, images.true, images.predicted)]
    own = per_image_miou(images)
    means = summed(np.stack([np.nan_to_num(own), np.isfinite(own)], axis=1), groups)
    drawn: dict[str, list[Values]] = {"data_set_miou": [], "per_image_miou": [], "iou": []}
    for weights in resamples(len(means), samples, seed, len(images.names)):
        right, true, predicted = (weights @ part for part in counts)
        drawn["iou"].append(of_classes(right, true, predicted)["iou"])
        drawn["data_set_miou"].append(mean_of_known(drawn["iou"][-1]))
        total, number = np.moveaxis(weights @ means, -1, 0)
        drawn["per_image_miou"].append(_ratio(total, number))
    pooled = [part.sum(0) for part in counts]
    values = {"data_set_miou": data_set_miou(*pooled), "per_image_miou": mean_of_known(own)}
    named = {name: interval(float(value), drawn[name]) for name, value in values.items()}
    iou = of_classes(*pooled)["iou"]
    by_class = [interval(float(value), [part[:, k] for part in drawn["iou"]]) for k, value in enumerate(iou)]
    return named, by_class


def interval(value: float, drawn: Sequence[Values], level: float = LEVEL) -> Interval:
    """The interval that `level` of the drawn values lie in, as many below it as above; those that are NaN do not count."""
    together = np.concatenate(drawn) if drawn else np.empty(0)
    together = together[np.isfinite(together)]
    if not len(together):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(together, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def ranked(images: PerImage, count: int) -> tuple[list[int], list[int]]:
    """The numbers of the images with the lowest own mIoU, and of those nearest to the median; each at most half of all that are
    scored, so that no image is both."""
    own = per_image_miou(images)
    known = [int(i) for i in np.flatnonzero(np.isfinite(own))]
    worst = sorted(known, key=lambda i: (own[i], i))[: min(count, (len(known) + 1) // 2)]
    rest = [i for i in known if i not in set(worst)]
    middle = float(np.median(own[known])) if known else 0.0
    return worst, sorted(rest, key=lambda i: (abs(own[i] - middle), i))[:count]


def _ratio(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> Values:
    whole = np.asarray(whole, np.float64)
    shares: Values = np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)
    return shares


def mean_of_known(values: Values) -> Values:
    """The mean over the last axis of what is not NaN; NaN where nothing is."""
    known = np.isfinite(values)
    return _ratio(np.where(known, values, 0).sum(-1), known.sum(-1))
