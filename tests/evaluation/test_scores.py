"""Scores and intervals against scikit-learn and a plain loop."""

from __future__ import annotations

import re

import numpy as np
import pytest
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from src.errors import UserError
from src.evaluation import scores
from src.evaluation.results import of_images
from tests.evaluation.images import NAMES, per_image, predicted, random_truths


def test_they_are_scikit_learns_over_the_data_set_and_per_image() -> None:
    matrices = predicted(random_truths(7, 0) // 20, 1)
    said = of_images(per_image(matrices), 0, None, 0)
    pairs = [np.repeat(np.indices(m.shape).reshape(2, -1).T, m.ravel(), axis=0) for m in matrices]
    together = np.concatenate(pairs)
    kinds = {"iou": jaccard_score, "dice": f1_score, "precision": precision_score, "recall": recall_score}
    for kind, function in kinds.items():
        expected = function(together[:, 0], together[:, 1], labels=range(4), average=None)
        assert [said["classes"][name][kind] for name in NAMES] == pytest.approx(list(expected))
    own = []
    for pair in pairs:
        there = sorted({*pair[:, 0], *pair[:, 1]})
        own.append(jaccard_score(pair[:, 0], pair[:, 1], labels=there, average="macro"))
    assert said["per_image"]["miou"] == pytest.approx(np.mean(own))
    assert said["data_set"]["miou"] == pytest.approx(
        jaccard_score(together[:, 0], together[:, 1], labels=range(4), average="macro")
    )
    assert said["per_image"]["miou"] != pytest.approx(said["data_set"]["miou"], abs=1e-4)
    assert said["data_set"]["miou_interval"] == [None, None]


def test_intervals_are_those_of_data_sets_drawn_one_by_one() -> None:
    matrices = predicted(random_truths(30, 2), 3)
    images = per_image(matrices)
    groups = scores.groups_of(images.ids, images.wholes, r"^(.*)_")
    assert groups.max() + 1 == 10
    named, by_class = scores.intervals(images, groups, 400, 5)
    drawn, classes = [], []
    for weights in np.concatenate(list(scores.resamples(10, 400, 5, 4))):
        total = sum(weights[group] * matrix for group, matrix in zip(groups, matrices, strict=True))
        assert isinstance(total, np.ndarray)
        iou = total.diagonal() / (total.sum(0) + total.sum(1) - total.diagonal())
        drawn.append(iou.mean())
        classes.append(iou[1])
    assert (named["data_set_miou"].low, named["data_set_miou"].high) == pytest.approx(
        tuple(np.quantile(drawn, [0.025, 0.975]))
    )
    assert (by_class[1].low, by_class[1].high) == pytest.approx(tuple(np.quantile(classes, [0.025, 0.975])))
    own = scores.per_image_miou(images)
    assert named["per_image_miou"].low < own.mean() < named["per_image_miou"].high
    alone, _ = scores.intervals(images, np.arange(30), 400, 5)
    assert alone["data_set_miou"].value == named["data_set_miou"].value


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Of 100 data sets drawn from one kind of images, about 95 intervals have the mean of all that there could be."""
    truth = float(
        scores.data_set_miou(*(p.sum(0) for p in _counts(predicted(random_truths(4000, 9), 9, difficulty=9))))
    )
    held = 0
    for seed in range(100):
        images = per_image(predicted(random_truths(60, seed), seed + 1000, difficulty=seed + 500))
        named, _ = scores.intervals(images, np.arange(60), 300, seed)
        held += named["data_set_miou"].low <= truth <= named["data_set_miou"].high
    assert 85 <= held <= 100  # of Binomial(100, 0.93) at least 99 %


def _counts(matrices: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    images = per_image(matrices)
    return images.right, images.true, images.predicted


def test_an_image_without_a_label_is_in_no_mean() -> None:
    matrices = [*predicted(random_truths(5, 0), 1), np.zeros((4, 4), np.int64)]
    with_it, without = (per_image(m) for m in (matrices, matrices[:-1]))
    one, other = (of_images(images, 0, None, 0) for images in (with_it, without))
    assert one["per_image"]["miou"] == other["per_image"]["miou"]
    worst, typical = scores.ranked(with_it, 10)
    assert sorted([*worst, *typical]) == [0, 1, 2, 3, 4]
    own = scores.per_image_miou(with_it)
    assert max(own[worst]) <= min(own[typical])


@pytest.mark.parametrize(("pattern", "said"), [
    ("(", "bootstrap.group: '(' is no regular expression"),
    ("^village", "bootstrap.group: '^village' is not found in the name 'town0_0'"),
    ("town", "bootstrap.group: all 6 images are of one group ('town')"),
])  # fmt: skip
def test_patterns_that_group_nothing(pattern: str, said: str) -> None:
    images = per_image(predicted(random_truths(6, 0), 1))
    with pytest.raises(UserError, match=re.escape(said)):
        scores.groups_of(images.ids, images.wholes, pattern)
