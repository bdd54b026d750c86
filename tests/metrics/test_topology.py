"""Metrics of connectedness see what pixel counts do not: a gap in a ring, a line in two pieces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from src.cli.command import compose
from src.evaluate import evaluate
from src.metrics.topology import BettiError, ClDice, holes, pieces
from src.train import train
from tests.conftest import SMALL, settings

skimage = pytest.importorskip("skimage")


def ring(size: int = 24, gap: bool = False) -> npt.NDArray[np.bool_]:
    y, x = np.mgrid[:size, :size] - size // 2
    radius = np.hypot(x, y)
    region: npt.NDArray[np.bool_] = (radius > 5) & (radius < 9)
    if gap:
        region[size // 2 - 1 : size // 2 + 1, size // 2 :] = False
    return region


def as_classes(region: npt.NDArray[np.bool_]) -> torch.Tensor:
    return torch.from_numpy(region.astype(np.int64))[None]


def test_pieces_and_holes_are_counted() -> None:
    assert (pieces(ring()), holes(ring())) == (1, 1)
    assert (pieces(ring(gap=True)), holes(ring(gap=True))) == (1, 0)
    two = np.zeros((9, 9), bool)
    two[1:3, 1:3] = two[3:5, 3:5] = True  # they touch by a corner
    assert pieces(two) == 1
    two[3, 3] = False
    assert pieces(two) == 2 and pieces(two, smallest=4) == 1
    assert (pieces(np.zeros((4, 4), bool)), holes(np.zeros((4, 4), bool)), holes(np.ones((4, 4), bool))) == (0, 0, 0)


@given(arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_pieces_less_holes_are_the_euler_number(region: npt.NDArray[np.bool_]) -> None:
    assert pieces(region) - holes(region) == skimage.measure.euler_number(region, connectivity=2)


def test_betti_errors_are_those_of_scikit_images_counts() -> None:
    generator = torch.Generator().manual_seed(1)
    masks, predictions = torch.randint(0, 3, (2, 5, 12, 17), generator=generator)
    errors: dict[int, list[list[int]]] = {0: [], 1: []}
    for predicted, truth in zip(predictions.numpy(), masks.numpy(), strict=True):
        numbers = []
        for classes in (predicted, truth):
            count = [skimage.measure.label(classes == k, connectivity=2).max() for k in range(3)]
            euler = [skimage.measure.euler_number(classes == k, connectivity=2) for k in range(3)]
            numbers.append((np.array(count), np.array(count) - np.array(euler)))
        for dimension in errors:
            errors[dimension].append(abs(numbers[0][dimension] - numbers[1][dimension]).tolist())
    for dimension, expected in errors.items():
        metric = BettiError(3, 255, dimension)  # type: ignore[arg-type]
        metric.update(predictions, masks)
        assert metric.compute().tolist() == pytest.approx(np.mean(expected, axis=0).tolist())
        assert sum(metric.compute().tolist()) > 0


def test_a_gap_costs_a_hole_and_hardly_a_pixel() -> None:
    truth, broken = as_classes(ring()), as_classes(ring(gap=True))
    for dimension, error in ((0, 0), (1, 1)):
        metric = BettiError(2, 255, dimension)  # type: ignore[arg-type]
        metric.update(broken, truth)
        assert metric.compute()[1] == error
    alike = ClDice(2, 255)
    alike.update(truth, truth)
    assert alike.compute().tolist() == [1, 1]
    cldice = ClDice(2, 255)
    cldice.update(broken, truth)
    assert 0.9 < cldice.compute()[1] < 1


def test_centreline_dice_is_that_of_its_formula() -> None:
    truth, predicted = np.zeros((20, 40), bool), np.zeros((20, 40), bool)
    truth[8:13, 2:38] = True
    predicted[8:13, 2:20] = True  # half of the bar, and a bar that is not there
    predicted[16:19, 2:10] = True
    thin = skimage.morphology.skeletonize
    precision = (thin(predicted) & truth).sum() / thin(predicted).sum()
    recall = (thin(truth) & predicted).sum() / thin(truth).sum()
    metric = ClDice(2, 255)
    metric.update(as_classes(predicted), as_classes(truth))
    assert float(metric.compute()[1]) == pytest.approx(2 * precision * recall / (precision + recall))


def test_ignored_pixels_and_absent_classes_count_nothing() -> None:
    truth = as_classes(ring())
    truth[0, :, 12:] = 255
    predicted = truth.clone()
    predicted[0, :, 12:] = 1  # whatever it is there
    for metric in (ClDice(3, 255), BettiError(3, 255)):
        metric.update(predicted, truth)
        result = metric.compute()
        assert result[1] == metric.higher_is_better and torch.isnan(result[2])
    wrong = ClDice(2, 255)
    wrong.update(torch.zeros_like(truth), truth)
    assert wrong.compute()[1] == 0


def test_parts_of_a_split_add_up() -> None:
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(0, 3, (4, 16, 16), generator=generator)
    predictions = torch.randint(0, 3, (4, 16, 16), generator=generator)
    for make in (lambda: ClDice(3, 255), lambda: BettiError(3, 255, 1)):
        whole, first, second = make(), make(), make()
        whole.update(predictions, masks)
        first.update(predictions[:1], masks[:1])
        second.update(predictions[1:], masks[1:])
        for name in whole._defaults:
            assert torch.equal(getattr(whole, name), getattr(first, name) + getattr(second, name))


def test_a_run_reports_them(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    outcome = train(settings(run_dir, *SMALL, "metrics=topology", "trainer.max_epochs=1"))
    scores = outcome.metrics["test"]
    assert 0 <= scores["cldice"] <= 1 and scores["holes_wrong"] >= 0 and scores["pieces_wrong"] >= 0
    assert "cldice/ring" in outcome.metrics["val"]
    again = compose("evaluate", [f"ckpt={run_dir}", "splits=[test]", f"paths.output_dir={tmp_path}"])
    assert evaluate(again)["test"] == scores  # they are the program's own parts, so that no trust= is needed
