"""Two models on the same images: how often a difference is claimed where there is none; one is found where it is."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from src.errors import UserError
from src.evaluation import paired
from src.evaluation.scores import per_image_miou
from tests.evaluation.images import NAMES, per_image, predicted, random_truths

SIMULATIONS = 200


def test_two_seeds_of_one_recipe_differ_in_a_twentieth_of_all_simulations() -> None:
    """Both models have the same skill; only their luck in each image differs. So p < 0.05 comes out by chance alone."""
    claimed = {"bootstrap": 0, "wilcoxon": 0, "classes": 0}
    for at in range(SIMULATIONS):
        truths = random_truths(50, at)
        a, b = (per_image(predicted(truths, seed + 10 * at, difficulty=at)) for seed in (1, 2))
        found = paired.compared([a], [b], 400, seed=at)
        claimed["bootstrap"] += found.differs
        claimed["wilcoxon"] += found.test.p < 0.05
        claimed["classes"] += any(one.corrected_p is not None and one.corrected_p < 0.05 for one in found.classes)
    low, high = stats.binom.interval(0.999, SIMULATIONS, 0.05)
    assert low <= claimed["bootstrap"] <= high, claimed
    assert low <= claimed["wilcoxon"] <= high, claimed
    assert claimed["classes"] <= high, claimed  # Holm keeps the chance of any false claim below 0.05


def test_a_real_difference_is_found_where_it_is() -> None:
    truths = random_truths(60, 1)
    a = per_image(predicted(truths, 1, skill=0.65))
    b = per_image(predicted(truths, 2, skill=0.75))
    found = paired.compared([a], [b], 1000)
    assert found.differs
    assert found.data_set.by.low > 0.03
    assert found.data_set.by.value == pytest.approx(found.data_set.b - found.data_set.a)
    assert found.test.p < 1e-6 and found.test.effect > 0.5 and found.test.gain > 0.6
    back = paired.compared([b], [a], 1000)
    assert back.data_set.by.value == pytest.approx(-found.data_set.by.value)
    assert back.test.effect == pytest.approx(-found.test.effect)
    # of one class only
    worse = [m.copy() for m in predicted(truths, 1, skill=0.65)]
    for matrix in worse:
        lost = matrix[1, 1] // 2
        matrix[1, 1] -= lost
        matrix[1, 0] += lost
    by_class = {one.name: one for one in paired.compared([a], [per_image(worse)], 500).classes}
    assert (by_class["car"].corrected_p or 1) < 1e-6 and by_class["car"].iou.by.high < 0
    assert by_class["tree"].corrected_p == 1.0 and by_class["tree"].iou.by.value == 0


def test_a_model_is_no_other_than_itself() -> None:
    a = per_image(predicted(random_truths(20, 0), 1))
    found = paired.compared([a], [a], 200)
    assert (found.data_set.p, found.test.p, found.test.effect, found.differs) == (1.0, 1.0, 0.0, False)


def test_the_tests_are_scipys_and_groups_are_one_observation_each() -> None:
    truths = random_truths(30, 3)
    a, b = (per_image(predicted(truths, seed)) for seed in (1, 2))
    by = per_image_miou(b) - per_image_miou(a)
    alone = paired.compared([a], [b], 200)
    assert alone.test.p == pytest.approx(stats.wilcoxon(by).pvalue)
    positive = stats.rankdata(np.abs(by))[by > 0].sum()
    assert alone.test.effect == pytest.approx(2 * positive / (30 * 31 / 2) - 1)
    grouped = paired.compared([a], [b], 200, r"^(.*)_")
    assert (grouped.groups, grouped.test.count) == (10, 10)
    assert grouped.test.p == pytest.approx(stats.wilcoxon(by.reshape(10, 3).mean(1)).pvalue)
    assert grouped.data_set.by.value == alone.data_set.by.value


def test_several_seeds_are_averaged() -> None:
    truths = random_truths(25, 4)
    runs = [per_image(predicted(truths, seed)) for seed in range(4)]
    found = paired.compared(runs[:2], runs[2:], 200)
    single = [paired.compared([runs[i]], [runs[i + 2]], 200) for i in (0, 1)]
    assert found.data_set.a == pytest.approx(np.mean([one.data_set.a for one in single]))
    assert found.per_image.by.value == pytest.approx(np.mean([one.per_image.by.value for one in single]))
    wide, narrow = single[0].data_set.by, found.data_set.by
    assert narrow.high - narrow.low < wide.high - wide.low


def test_seeds_are_paired_where_both_have_the_same() -> None:
    a, b = {1: 0.50, 2: 0.60, 3: 0.55}, {1: 0.53, 2: 0.62, 3: 0.59}
    same = paired.of_seeds(a, b)
    assert same.paired and same.mean == pytest.approx(0.03) and same.deviation == pytest.approx(0.01)
    assert same.p == pytest.approx(stats.ttest_rel(list(b.values()), list(a.values())).pvalue)
    other = paired.of_seeds(a, {7: 0.53, 8: 0.62, 9: 0.59})
    assert not other.paired and other.deviation is None
    assert other.p == pytest.approx(stats.ttest_ind([0.5, 0.6, 0.55], [0.53, 0.62, 0.59], equal_var=False).pvalue)
    assert paired.of_seeds({1: 0.5}, {1: 0.6}).p is None


def test_holm() -> None:
    assert paired.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert paired.holm([]) == []


def test_other_images_classes_or_masks_are_refused() -> None:
    truths = random_truths(5, 0)
    a = per_image(predicted(truths, 1))
    order = np.array([3, 1, 0, 2, 4])
    b = per_image(predicted(truths, 2))
    assert paired.aligned(a, b.taken(order), ("A", "B")).ids == a.ids
    for other, said in {
        "classes": (replace(b, names=(*NAMES[:3], "sea")), "b: B has other classes than A (4: road, car, tree, sea"),
        "images": (b.taken(order[:4]), "b: B was scored on other images than A (1 are missing and 0 are new, 'town1_4' say)"),
        "masks": (per_image(predicted(truths + (np.arange(5) == 2)[:, None], 2)),
                  "b: B was scored against other masks than A in 1 images ('town0_2' say)"),
    }.values():  # fmt: skip
        with pytest.raises(UserError, match=re.escape(said)):
            paired.aligned(a, other, ("A", "B"))
