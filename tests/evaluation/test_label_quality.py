"""Which labels are doubted, and how much."""

from __future__ import annotations

import numpy as np
import pytest
from cleanlab.segmentation.rank import get_label_quality_scores

from src.data.labels import LabelSet
from src.evaluation.label_quality import Quality, Region, quality, ranked

LABELS = LabelSet(("ground", "road", "tree"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)))
VOID = LABELS.ignore_index


def of(own: np.ndarray, mask: np.ndarray, predicted: np.ndarray, threshold: float = 0.1, smallest: int = 1) -> Quality:
    found = quality("a", "a", own, mask, predicted, LABELS, threshold, smallest)
    assert found is not None
    return found


def test_the_score_is_cleanlabs_of_all_classes() -> None:
    rng = np.random.default_rng(0)
    chances = rng.dirichlet([0.3, 0.3, 0.3], (6, 8)).transpose(2, 0, 1)
    mask = rng.integers(0, 3, (6, 8))
    expected, _ = get_label_quality_scores(mask[None], chances[None], verbose=False)
    own = np.take_along_axis(chances, mask[None], 0)[0]
    assert of(own, mask, chances.argmax(0)).score == pytest.approx(expected[0], rel=1e-12)


def test_what_is_ignored_is_not_asked_about() -> None:
    own = np.full((4, 6), 0.9)
    mask, predicted = np.zeros((4, 6), np.int64), np.ones((4, 6), np.int64)
    mask[:, 3:] = VOID
    own[:, 3:] = 0
    found = of(own, mask, predicted)
    assert found.score == pytest.approx(0.9)
    assert (found.pixels, found.doubtful, found.regions) == (12, 0, [])
    mask[:] = VOID
    assert quality("a", "a", own, mask, predicted, LABELS, 0.1, 1) is None


def test_regions_are_of_one_label_that_looks_like_one_class() -> None:
    mask, predicted, own = np.zeros((10, 12), np.int64), np.zeros((10, 12), np.int64), np.full((10, 12), 0.95)
    mask[1:4, 1:5], own[1:4, 1:5] = 1, 0.01  # labelled road, looks like ground
    predicted[6:9, 2:4], own[6:9, 2:4] = 2, 0.05  # labelled ground, looks like tree …
    predicted[6:9, 4:6], own[6:9, 4:6] = 1, 0.02  # … and beside it like road
    predicted[0, 11], own[0, 11] = 1, 0.3  # not improbable enough
    found = of(own, mask, predicted)
    assert found.doubtful == 12 + 6 + 6
    assert [(r.label, r.predicted, r.pixels, r.box) for r in found.regions] == [
        (1, 0, 12, (1, 1, 4, 5)), (0, 1, 6, (6, 4, 9, 6)), (0, 2, 6, (6, 2, 9, 4)),
    ]  # fmt: skip
    assert found.regions[0].doubt == pytest.approx(12 * 0.99)
    assert [r.pixels for r in of(own, mask, predicted, smallest=7).regions] == [12]


def test_pixels_that_touch_at_a_corner_hang_together() -> None:
    mask, own = np.zeros((4, 4), np.int64), np.full((4, 4), 0.9)
    predicted = mask.copy()
    for at in range(4):
        predicted[at, at], own[at, at] = 1, 0.01
    assert [r.pixels for r in of(own, mask, predicted).regions] == [4]


def test_the_lowest_score_comes_first_and_ties_go_by_name() -> None:
    region: list[Region] = []
    found = [Quality(name, name, score, 1, 0, region) for name, score in (("b", 0.5), ("c", 0.1), ("a", 0.5))]
    assert [one.name for one in ranked(found)] == ["c", "a", "b"]
