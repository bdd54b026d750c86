"""Calibration against numpy, scipy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.metrics import average_precision_score, log_loss

from src.evaluation import calibration
from src.evaluation.calibration import Calibration


def images(k: int, count: int = 3, heat: float = 2.0) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    """Logits [K, 20, 30] that are `heat` times too sure, and truths that are drawn by those before; some are ignored."""
    generator = torch.Generator().manual_seed(k)
    made = []
    for i in range(count):
        logits = torch.randn(k, 20, 30, generator=generator) * 1.5
        truth = torch.multinomial(logits.flatten(1).softmax(0).T, 1, generator=generator).view(20, 30).byte()
        truth[:2] = 255
        made.append((f"image {i}", logits * heat, truth))
    return made


def added(k: int, bins: int = 15, **options: float) -> tuple[calibration.Calibrated, torch.Tensor, torch.Tensor]:
    found = Calibration(k, 255, 3, bins, **options)  # type: ignore[arg-type]
    for name, logits, truth in images(k):
        for top in (0, 11):  # in two strips
            rows = slice(top, 11 if top == 0 else 20)
            found.add(name, top, logits[:, rows], truth[rows], 20)
    logits = torch.cat([each[1].flatten(1).T[each[2].flatten() != 255] for each in images(k)])
    return found.finish(), logits, torch.cat([each[2][each[2] != 255] for each in images(k)]).long()


def test_the_error_is_that_of_the_pixels_in_their_bins() -> None:
    found, logits, truth = added(5)
    probability = logits.double().softmax(1).numpy()
    confidence, right = probability.max(1), probability.argmax(1) == truth.numpy()
    error = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert found.diagrams[0].error == pytest.approx(error, abs=1e-6)
    assert found.nll[0] == pytest.approx(log_loss(truth.numpy(), probability, labels=range(5)), rel=1e-5)
    assert int(found.diagrams[0].pixels.sum()) == len(truth)
    assert sum(row["pixels"] for row in found.diagrams[0].rows()) == len(truth)


def test_the_temperature_is_the_one_that_scipy_finds_and_mends_what_was_too_sure() -> None:
    found, logits, truth = added(5)
    temperature = calibration.fitted(found.logits, found.truth)
    best = minimize_scalar(
        lambda t: log_loss(truth.numpy(), (logits.double() / t).softmax(1).numpy(), labels=range(5)),
        bounds=(0.1, 10), method="bounded", options={"xatol": 1e-6},
    )  # fmt: skip
    assert temperature == pytest.approx(best.x, rel=1e-4)
    assert temperature == pytest.approx(2.0, rel=0.1)
    assert calibration.nll(found.logits / temperature, found.truth) == pytest.approx(best.fun, rel=1e-6)
    again, _, _ = added(5, temperature=temperature)
    assert again.diagrams[1].error < found.diagrams[0].error / 3
    on_sample = calibration.reliability(found.logits / temperature, found.truth, 15)
    assert on_sample.error == pytest.approx(again.diagrams[1].error, abs=1e-6)


def test_a_sample_is_the_same_wherever_an_image_is_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_SAMPLE", 5 * 3 * 100)
    forward, backward = Calibration(5, 255, 3, 15), Calibration(5, 255, 3, 15)
    for one, order in ((forward, images(5)), (backward, images(5)[::-1])):
        for name, logits, truth in order:
            one.add(name, 0, logits, truth, 20)
    a, b = forward.finish(), backward.finish()
    assert len(a.truth) == 300
    assert torch.equal(a.logits, b.logits) and torch.equal(a.truth, b.truth)


def test_curves_of_two_classes() -> None:
    found, logits, truth = added(2)
    stepped = (logits.softmax(1)[:, 1] * 1000).floor().clamp(0, 999).numpy() / 1000
    expected = average_precision_score(truth.numpy(), stepped)
    assert calibration.average_precision(found.binary) == pytest.approx(expected, rel=1e-6)
    for point in calibration.curves(found.binary)[::97]:
        chosen, there = stepped >= point["threshold"] - 1e-9, truth.numpy() == 1
        assert point["recall"] == pytest.approx((chosen & there).sum() / there.sum())
        assert point["iou"] == pytest.approx((chosen & there).sum() / (chosen | there).sum())
        if chosen.any():
            assert point["precision"] == pytest.approx((chosen & there).sum() / chosen.sum())
    assert int(added(5)[0].binary.sum()) == 0
