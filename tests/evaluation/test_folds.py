"""Folds pooled into one score."""

from __future__ import annotations

import json

import numpy as np
import pytest

from src.errors import UserError
from src.evaluation.folds import Fold, pooled, told
from src.evaluation.matrices import PerImage


def fold(
    run: str, ids: list[str], seed: int, wholes: list[str] | None = None, names: tuple[str, ...] = ("a", "b", "c")
) -> Fold:
    matrices = np.random.default_rng(seed).integers(0, 50, (len(ids), len(names), len(names)))
    matrices[:, np.arange(len(names)), np.arange(len(names))] += 100
    right, true, predicted = matrices.diagonal(0, 1, 2), matrices.sum(2), matrices.sum(1)
    return Fold(run, PerImage(ids, wholes or ids, names, "test", right, true, predicted))


def iou(images: PerImage) -> float:
    right, true, predicted = (part.sum(0) for part in (images.right, images.true, images.predicted))
    return float(np.mean(right / (true + predicted - right)))


def test_the_score_is_that_of_all_matrices_together() -> None:
    folds = [fold("0", ["i1", "i3"], 0), fold("1", ["i2", "i4", "i5"], 1), fold("2", ["i0"], 2)]
    found = pooled(folds)
    together = np.concatenate([one.images.right for one in folds]).sum(0)
    assert np.array_equal(found.images.right.sum(0), together)
    assert found.miou.value == pytest.approx(iou(found.images))
    assert found.miou.low < found.miou.value < found.miou.high
    each = [iou(one.images) for one in folds]
    assert (found.mean, found.deviation) == pytest.approx((np.mean(each), np.std(each, ddof=1)))
    assert found.mean != pytest.approx(found.miou.value, abs=1e-6)  # it is not the folds' mean
    said = json.loads(json.dumps(found.plain()))
    assert said["run_of_image"] == {"i1": "0", "i3": "0", "i2": "1", "i4": "1", "i5": "1", "i0": "2"}
    assert [one["images"] for one in said["folds"]["each"]] == [2, 3, 1]
    assert "3 folds: out-of-fold mIoU " in told(said) and "over 6 images" in told(said)


def test_what_is_cut_out_of_one_whole_is_drawn_together() -> None:
    wide = pooled([fold("0", ["a1", "a2"], 0, ["a", "a"]), fold("1", ["b1", "b2"], 1, ["b", "b"])])
    assert len({wide.miou.low, wide.miou.high}) == 2
    one = pooled([fold("0", ["a1"], 0, ["a"]), fold("1", ["a2"], 1, ["a"])])
    assert one.plain()["pooled"]["miou_interval"] == [None, None]
    assert "mIoU" in told(one.plain())


def test_folds_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(UserError, match="folds: i1 was held out in run 0 and in run 1"):
        pooled([fold("0", ["i1"], 0), fold("1", ["i2", "i1"], 1)])
    with pytest.raises(UserError, match="folds: run 1 has other classes than run 0"):
        pooled([fold("0", ["i1"], 0), fold("1", ["i2"], 1, names=("a", "c", "b"))])
