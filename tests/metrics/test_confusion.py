"""The confusion matrix and its scores against NumPy and scikit-learn, on random cases with ignored pixels."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from src.metrics import confusion
from src.metrics.confusion import ConfusionMatrix, scores

VOID = 255
Array = npt.NDArray[np.int64]


@st.composite
def cases(draw: st.DrawFn) -> tuple[int, Tensor, Tensor]:
    """(K, prediction, mask), int64 [B, H, W]; often classes are in one only or none, and pixels void."""
    k = draw(st.integers(2, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = tuple(draw(st.integers(1, high)) for high in (4, 9, 9))
    drawn = st.lists(st.integers(0, k - 1), min_size=1, max_size=k)
    truth = rng.choice(draw(drawn), shape)
    prediction = np.where(rng.random(shape) < draw(st.floats(0, 1)), truth, rng.choice(draw(drawn), shape))
    truth = np.where(rng.random(shape) < draw(st.sampled_from([0.0, 0.3, 0.95, 1.0])), VOID, truth)
    return k, torch.from_numpy(prediction), torch.from_numpy(truth)


def matrix_of(k: int, prediction: Tensor, mask: Tensor) -> Tensor:
    metric = ConfusionMatrix(k)
    metric.update(prediction, mask)
    return metric.compute()


def names(k: int) -> list[str]:
    return [f"class {i}" for i in range(k)]


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


class TestMatrix:
    @settings(max_examples=60, deadline=None)
    @given(cases())
    def test_equals_numpy_and_sklearn(self, case: tuple[int, Tensor, Tensor]) -> None:
        k, prediction, mask = case
        expected: Array = np.zeros((k, k), np.int64)
        valid = mask.numpy() != VOID
        np.add.at(expected, (mask.numpy()[valid], prediction.numpy()[valid]), 1)
        matrix = matrix_of(k, prediction, mask)
        assert matrix.dtype == torch.int64
        np.testing.assert_array_equal(matrix.numpy(), expected)
        if valid.any():
            reference = sklearn.metrics.confusion_matrix(mask[valid], prediction[valid], labels=range(k))
            np.testing.assert_array_equal(matrix.numpy(), reference)

    @settings(max_examples=30, deadline=None)
    @given(cases(), st.integers(1, 50))
    def test_cutting_into_batches_or_chunks_changes_nothing(self, case: tuple[int, Tensor, Tensor], chunk: int) -> None:
        k, prediction, mask = case
        whole = matrix_of(k, prediction, mask)
        metric = ConfusionMatrix(k)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(confusion, "_CHUNK", chunk)
            for one_prediction, one_mask in zip(prediction, mask, strict=True):
                metric.update(one_prediction[None], one_mask[None])
        assert torch.equal(metric.compute(), whole)

    def test_merging_two_is_one_over_both(self) -> None:
        generator = torch.Generator().manual_seed(0)
        a, b = (torch.randint(0, 5, (2, 3, 8, 8), generator=generator) for _ in range(2))
        first, second = ConfusionMatrix(5), ConfusionMatrix(5)
        first.update(*a)
        second.update(*b)
        first.merge_state(second)
        assert torch.equal(first.compute(), matrix_of(5, *torch.cat([a, b], 1)))

    def test_reset_starts_again(self) -> None:
        metric = ConfusionMatrix(3)
        ones = torch.ones(1, 2, 2, dtype=torch.int64)
        metric.update(ones, ones)
        metric.reset()
        metric.update(ones, ones)
        assert metric.compute()[1, 1] == 4

    def test_what_was_computed_does_not_change_afterwards(self) -> None:
        metric = ConfusionMatrix(3)
        ones = torch.ones(1, 2, 2, dtype=torch.int64)
        metric.update(ones, ones)
        before = metric.compute()
        metric.update(ones, ones)
        assert before.sum() == 4

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
    def test_many_classes_in_any_integer_dtype(self, dtype: torch.dtype) -> None:
        values = torch.arange(255).to(dtype).reshape(1, 15, 17)
        assert torch.equal(matrix_of(255, values.flip(1, 2), values), torch.eye(255, dtype=torch.int64).flip(1))

    def test_predictions_at_ignored_pixels_do_not_matter(self) -> None:
        mask = torch.tensor([[[0, VOID, VOID]]], dtype=torch.uint8)
        prediction = torch.tensor([[[0, 77, -1]]])
        assert matrix_of(2, prediction, mask).tolist() == [[1, 0], [0, 0]]

    def test_another_ignore_index(self) -> None:
        metric = ConfusionMatrix(2, ignore_index=-1)
        metric.update(torch.tensor([[[0, 1, 1]]]), torch.tensor([[[0, -1, 0]]]))
        assert metric.compute().tolist() == [[1, 1], [0, 0]]

    @pytest.mark.parametrize(("prediction", "mask"), [(2, 0), (-1, 1), (0, 2), (0, -1), (0, 254)])
    def test_a_value_that_is_no_class_is_an_error(self, prediction: int, mask: int) -> None:
        with pytest.raises(ValueError, match=r"beyond 0\.\.1"):
            matrix_of(2, torch.tensor([[[0, prediction]]]), torch.tensor([[[0, mask]]]))

    def test_shapes_that_differ_are_an_error(self) -> None:
        with pytest.raises(ValueError, match="prediction is"):
            matrix_of(2, torch.zeros(1, 2, 2, dtype=torch.int64), torch.zeros(2, 2, dtype=torch.int64))

    @pytest.mark.usefixtures("deterministic")
    def test_is_fast_with_deterministic_algorithms(self) -> None:
        generator = torch.Generator().manual_seed(0)
        prediction, mask = torch.randint(0, 19, (2, 2, 512, 1024), generator=generator)
        metric = ConfusionMatrix(19)
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            metric.update(prediction, mask)
        assert time.perf_counter() - start < 1.0  # torchmetrics' own takes 10 s
        assert metric.compute().sum() == prediction.numel()


class TestScores:
    @settings(max_examples=60, deadline=None)
    @given(cases())
    def test_equal_sklearn(self, case: tuple[int, Tensor, Tensor]) -> None:
        k, prediction, mask = case
        valid = mask != VOID
        t, p = mask[valid].numpy(), prediction[valid].numpy()
        result = scores(matrix_of(k, prediction, mask), names(k))
        if not valid.any():
            expected = dict.fromkeys(["miou", "mean_accuracy", "pixel_accuracy", "dice", "fw_iou"], 0.0)
        else:
            present, in_truth = sorted({*t, *p}), sorted({*t})
            iou = sklearn.metrics.jaccard_score(t, p, labels=present, average=None, zero_division=0)
            recall = sklearn.metrics.recall_score(t, p, labels=in_truth, average=None, zero_division=0)
            f1 = sklearn.metrics.f1_score(t, p, labels=present, average=None, zero_division=0)
            expected = {
                "miou": iou.mean(),
                "mean_accuracy": recall.mean(),
                "pixel_accuracy": sklearn.metrics.accuracy_score(t, p),
                "dice": f1.mean(),
                "fw_iou": np.average(iou, weights=[(t == c).sum() for c in present]),
                **{f"iou/class {c}": value for c, value in zip(present, iou, strict=True)},
            }
        assert result == pytest.approx(expected, abs=1e-12)
        assert all(isinstance(value, float) and 0 <= value <= 1 for value in result.values())

    def test_by_hand(self) -> None:
        """Class d is in neither truth nor prediction, class c is predicted only."""
        matrix = torch.tensor([[3, 1, 0, 0], [0, 2, 2, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
        assert scores(matrix, "abcd") == pytest.approx(
            {
                "miou": (3 / 4 + 2 / 5 + 0) / 3,
                "mean_accuracy": (3 / 4 + 2 / 4) / 2,
                "pixel_accuracy": 5 / 8,
                "dice": (6 / 7 + 4 / 7 + 0) / 3,
                "fw_iou": (3 / 4 * 4 + 2 / 5 * 4) / 8,
                "iou/a": 3 / 4,
                "iou/b": 2 / 5,
                "iou/c": 0.0,
            }
        )

    @pytest.mark.parametrize("called", ["background", "Background", "_background_", "bg"])
    def test_foreground_dice_is_without_background(self, called: str) -> None:
        matrix = torch.tensor([[90, 1, 0, 0], [0, 2, 2, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
        for classes in ([called, "a", "b", "c"], ["a", called, "b", "c"]):
            order = [classes.index(name) for name in (called, "a", "b", "c")]
            found = scores(matrix[torch.tensor(order).argsort()][:, torch.tensor(order).argsort()], classes)
            assert found["dice_foreground"] == pytest.approx((4 / 7 + 0) / 2)
            assert found["dice"] == pytest.approx((180 / 181 + 4 / 7 + 0) / 3)
        assert "dice_foreground" not in scores(matrix, ["road", "a", "b", "c"])  # nothing is called background
        assert "dice_foreground" not in scores(torch.diag(torch.tensor([9, 0, 0, 0])), [called, "a", "b", "c"])

    def test_counts_beyond_int32_are_exact(self) -> None:
        huge = 2**40
        matrix = torch.tensor([[huge, 1], [0, huge]])
        assert scores(matrix, "ab")["pixel_accuracy"] == (2 * huge) / (2 * huge + 1)

    def test_names_must_fit(self) -> None:
        with pytest.raises(ValueError, match="3 class names"):
            scores(torch.zeros(2, 2, dtype=torch.int64), "abc")
