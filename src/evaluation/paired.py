"""Two models, or two groups of runs, compared on the same images. Imports no torch.

All differences are b less a. What is resampled, and what a test counts as one observation, is a group of images (an image
alone, where they are in no groups).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from src.errors import UserError
from src.evaluation.matrices import PerImage
from src.evaluation.scores import (
    Interval,
    Values,
    data_set_miou,
    groups_of,
    interval,
    mean_of_known,
    of_classes,
    per_image_miou,
    resamples,
    summed,
)
from src.files.untrusted import shown
from src.optional_packages import needs

Groups = npt.NDArray[np.intp]
ALPHA = 0.05


@dataclass(frozen=True)
class Difference:
    """What b has more than a.

    Attributes:
        a, b: the means over the runs of each.
        by: b less a, with its bootstrap interval.
        p: of no difference, two-sided; None where it was not asked for.
    """

    a: float
    b: float
    by: Interval
    p: float | None


@dataclass(frozen=True)
class SignedRank:
    """Wilcoxon's signed-rank test over groups of images.

    Attributes:
        count: groups that have a score on both sides.
        p: two-sided; 1 where no group differs.
        effect: matched-pairs rank-biserial correlation (Kerby 2014), -1…1: the share of ranks that favours b less that for a.
        gain: share of the groups in which b is better.
    """

    count: int
    p: float
    effect: float
    gain: float


@dataclass(frozen=True)
class OfClass:
    """One class: its IoU over the data set, the test over groups with it, and that test's p corrected over classes by Holm's
    method; None where fewer than two groups have it."""

    name: str
    iou: Difference
    test: SignedRank | None
    corrected_p: float | None


@dataclass(frozen=True)
class OfSeeds:
    """The scores of runs as observations: what another seed would change.

    Attributes:
        rows: seed (None where runs are not paired), score of a, score of b.
        paired: whether both have the same seeds; the test is then a paired one (Student's), else Welch's.
        mean, deviation: of the differences; the deviation is None where runs are not paired.
        p: None where a side has one run only, or scipy is missing.
    """

    rows: Sequence[tuple[int | None, float | None, float | None]]
    paired: bool
    mean: float
    deviation: float | None
    p: float | None


@dataclass(frozen=True)
class Compared:
    """All that is said of a and b.

    Attributes:
        groups: how many groups of images were resampled.
        data_set, per_image: mIoU over all pixels, and the mean of the images' own.
        test: over the groups' own mIoU.
        own: each image's own mIoU by a and by b, float64 [N].
    """

    images: int
    groups: int
    samples: int
    data_set: Difference
    per_image: Difference
    test: SignedRank
    classes: Sequence[OfClass]
    own: tuple[Values, Values]

    @property
    def differs(self) -> bool:
        """Whether the mIoU of the data set differs at p < 0.05, over images."""
        return self.data_set.p is not None and self.data_set.p < ALPHA


def aligned(first: PerImage, other: PerImage, names: tuple[str, str]) -> PerImage:
    """`other` in the order of `first`.

    Args:
        names: what messages call the two.

    Raises:
        UserError: their classes, images or truths differ.
    """
    one, two = names
    if list(first.names) != list(other.names):
        ours, theirs = (f"{len(it.names)}: {shown(', '.join(it.names), 120)}" for it in (first, other))
        raise UserError(f"b: {two} has other classes than {one} ({theirs}; {ours}); compare runs on one data set")
    place = {name: row for row, name in enumerate(other.ids)}
    missing = [name for name in first.ids if name not in place]
    more = len(other) - (len(first) - len(missing))
    if missing or more:
        example = missing[0] if missing else next(name for name in other.ids if name not in set(first.ids))
        raise UserError(
            f"b: {two} was scored on other images than {one} ({len(missing)} are missing and {more} are new, {example!r} say); "
            "evaluate both on the same split of the same data"
        )
    taken = other.taken(np.array([place[name] for name in first.ids], np.intp))
    if (unlike := (taken.true != first.true).any(axis=1)).any():
        example = first.ids[int(np.flatnonzero(unlike)[0])]
        raise UserError(
            f"b: {two} was scored against other masks than {one} in {int(unlike.sum())} images ({example!r} say); evaluate "
            "both on the same data: remove their folders evaluation/"
        )
    return taken


def compared(
    a: Sequence[PerImage], b: Sequence[PerImage], samples: int, group: str | None = None, seed: int = 0
) -> Compared:
    """Compares the runs a with the runs b, all of them on the same images in the same order.

    Raises:
        UserError: images cannot be grouped so, or scipy is missing.
    """
    first = a[0]
    groups = groups_of(first.ids, first.wholes, group)
    own_a, own_b = (mean_of_known(np.stack([per_image_miou(run) for run in side], -1)) for side in (a, b))
    sums = [[_by_group(run, groups) for run in side] for side in (a, b)]
    drawn: list[list[Values]] = [[], [], []]  # differences: mIoU of the data set, per image, of each class
    means = [_with_count(own, groups) for own in (own_a, own_b)]
    for weights in resamples(len(means[0]), samples, seed, len(first.names)):
        (miou_a, iou_a), (miou_b, iou_b) = (_pooled(side, weights) for side in sums)
        drawn[0].append(miou_b - miou_a)
        drawn[2].append(iou_b - iou_a)
        image_a, image_b = (_mean_of(weights @ part) for part in means)
        drawn[1].append(image_b - image_a)
    every = np.ones((1, len(means[0])))
    (miou_a, iou_a), (miou_b, iou_b) = (_pooled(side, every) for side in sums)
    classes = _classes(a, b, groups, iou_a[0], iou_b[0], drawn[2], first.names)
    return Compared(
        len(first), len(means[0]), samples,
        _difference(float(miou_a[0]), float(miou_b[0]), drawn[0]),
        _difference(float(mean_of_known(own_a)), float(mean_of_known(own_b)), drawn[1]),
        signed_rank(_of_groups(own_b - own_a, groups)), classes, (own_a, own_b),
    )  # fmt: skip


def signed_rank(differences: Values) -> SignedRank:
    """Wilcoxon's test of differences [G], those that are NaN left out.

    Raises:
        UserError: scipy is missing.
    """
    stats = needs("scipy.stats", "compare")
    known = differences[np.isfinite(differences)]
    unequal = known[known != 0]
    if not len(unequal):
        return SignedRank(len(known), 1.0, 0.0, 0.0)
    ranks = stats.rankdata(np.abs(unequal))
    effect = float((np.sign(unequal) * ranks).sum() / ranks.sum())
    return SignedRank(len(known), float(stats.wilcoxon(unequal).pvalue), effect, float((known > 0).mean()))


def holm(values: Sequence[float]) -> list[float]:
    """p values corrected for their number, by the step-down method of Holm (1979)."""
    order = sorted(range(len(values)), key=lambda at: values[at])
    corrected, largest = [0.0] * len(values), 0.0
    for rank, at in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[at]))
        corrected[at] = largest
    return corrected


def bootstrap_p(drawn: Values) -> float:
    """Two-sided, of differences that were drawn: twice the smaller share of those on either side of 0, never 0."""
    known = drawn[np.isfinite(drawn)]
    if not len(known):
        return 1.0
    tail = min(int((known <= 0).sum()), int((known >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (len(known) + 1))


def of_seeds(a: Mapping[int, float], b: Mapping[int, float]) -> OfSeeds:
    """Scores of runs by their seeds, compared as observations; without scipy there is no p."""
    paired = set(a) == set(b)
    mean = statistics.fmean(b.values()) - statistics.fmean(a.values())
    enough = min(len(a), len(b)) > 1
    if paired:
        differences = [b[seed] - a[seed] for seed in sorted(a)]
        deviation = statistics.stdev(differences) if enough else None
        p = None if not enough else _same_mean(differences, None)
        return OfSeeds([(seed, a[seed], b[seed]) for seed in sorted(a)], True, mean, deviation, p)
    rows = [(seed, a.get(seed), b.get(seed)) for seed in sorted({*a, *b})]
    return OfSeeds(rows, False, mean, None, _same_mean(list(a.values()), list(b.values())) if enough else None)


def _same_mean(a: Sequence[float], b: Sequence[float] | None) -> float | None:
    """p of Student's test that the mean is 0, or of Welch's that two means are equal; 1 or 0 where nothing varies."""
    try:
        stats = needs("scipy.stats", "compare")
    except UserError:
        return None
    if all(len(set(side)) == 1 for side in (a, b) if side is not None):
        return 1.0 if a[0] == (0.0 if b is None else b[0]) else 0.0
    result = stats.ttest_1samp(a, 0.0) if b is None else stats.ttest_ind(a, b, equal_var=False)
    return float(result.pvalue)


def _by_group(run: PerImage, groups: Groups) -> list[Values]:
    return [summed(part.astype(np.float64), groups) for part in (run.right, run.true, run.predicted)]


def _pooled(side: Sequence[Sequence[Values]], weights: Values) -> tuple[Values, Values]:
    """Means over a side's runs of the mIoU [s] and of each class's IoU [s, K] of data sets that are drawn."""
    counts = [[weights @ part for part in run] for run in side]
    miou = mean_of_known(np.stack([data_set_miou(*run) for run in counts], -1))
    return miou, mean_of_known(np.stack([of_classes(*run)["iou"] for run in counts], -1))


def _with_count(own: Values, groups: Groups) -> Values:
    """Of each group the sum of its images' scores, and how many have one: [G, 2]."""
    return summed(np.stack([np.nan_to_num(own), np.isfinite(own)], axis=1), groups)


def _mean_of(sums: Values) -> Values:
    means: Values = np.divide(sums[:, 0], sums[:, 1], out=np.full(len(sums), np.nan), where=sums[:, 1] > 0)
    return means


def _of_groups(values: Values, groups: Groups) -> Values:
    return _mean_of(_with_count(values, groups))


def _difference(a: float, b: float, drawn: Sequence[Values]) -> Difference:
    return Difference(a, b, interval(b - a, drawn), bootstrap_p(np.concatenate(drawn)) if drawn else None)


def _classes(
    a: Sequence[PerImage], b: Sequence[PerImage], groups: Groups, iou_a: Values, iou_b: Values, drawn: Sequence[Values],
    names: Sequence[str],
) -> list[OfClass]:  # fmt: skip
    """Each class; a group counts in its test where the truth of an image of it has the class."""
    sides = [
        mean_of_known(np.stack([of_classes(run.right, run.true, run.predicted)["iou"] for run in side], -1))
        for side in (a, b)
    ]
    gains = np.where(a[0].true > 0, sides[1] - sides[0], np.nan)
    tests = []
    for k in range(len(names)):
        test = signed_rank(_of_groups(gains[:, k], groups))
        tests.append(test if test.count > 1 else None)
    tested = [k for k, test in enumerate(tests) if test is not None]
    corrected = dict(zip(tested, holm([test.p for test in tests if test is not None]), strict=True))
    found = []
    for k, name in enumerate(names):
        by = interval(float(iou_b[k] - iou_a[k]), [part[:, k] for part in drawn])
        found.append(OfClass(name, Difference(float(iou_a[k]), float(iou_b[k]), by, None), tests[k], corrected.get(k)))
    return found
