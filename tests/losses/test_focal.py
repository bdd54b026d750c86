"""Focal loss against its formula."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from src.losses.ce import CrossEntropy
from src.losses.focal import Focal
from tests.losses.batches import VOID, K, batch, value_and_gradient


class TestFocal:
    @pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 0.5, 2.0, 3.0])], ids=["plain", "weighted"])
    def test_gamma_zero_is_cross_entropy(self, weights: Tensor | None) -> None:
        logits, mask = batch()
        value, gradient = value_and_gradient(Focal(0.0, class_weights=weights), logits, mask)
        expected, expected_gradient = value_and_gradient(CrossEntropy(class_weights=weights), logits, mask)
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(gradient, expected_gradient)

    @pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
    def test_equals_the_formula(self, gamma: float) -> None:
        logits, mask = batch()
        p = logits.softmax(1).gather(1, mask.clamp(max=K - 1).unsqueeze(1)).squeeze(1)[mask != VOID]
        torch.testing.assert_close(Focal(gamma)(logits, mask), (-((1 - p) ** gamma) * p.log()).mean())

    @pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
    def test_sure_pixels_have_finite_gradients(self, gamma: float) -> None:
        _, mask = batch()
        logits = 1000 * F.one_hot(mask.clamp(max=K - 1), K).movedim(-1, 1).float()
        _, gradient = value_and_gradient(Focal(gamma), logits, mask)
        assert gradient.isfinite().all()
