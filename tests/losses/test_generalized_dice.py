"""Generalized Dice against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from src.losses.generalized_dice import GeneralizedDice
from tests.losses.batches import VOID, K, batch


class TestGeneralizedDice:
    @pytest.mark.parametrize("weights", [None, [1.0, 0.5, 2.0, 3.0]], ids=["plain", "weighted"])
    def test_equals_numpy(self, weights: list[float] | None) -> None:
        logits, mask = batch()
        mask[mask == 2] = VOID  # an absent class does not count
        z, t = logits.double().numpy(), mask.numpy()
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        above = below = 0.0
        for k in (0, 1, 3):
            q, y = p[:, k][t != VOID], t[t != VOID] == k
            weight = (1.0 if weights is None else weights[k]) / y.sum() ** 2
            above, below = above + weight * (q * y).sum(), below + weight * (q.sum() + y.sum())
        loss = GeneralizedDice(class_weights=None if weights is None else torch.tensor(weights))
        assert loss(logits, mask).item() == pytest.approx(1 - 2 * above / below, rel=1e-5)

    def test_a_class_counts_as_much_small_or_large(self) -> None:
        """Missing a class of 4 pixels costs more than missing as many of a class of 1000."""
        mask = torch.zeros(1, 32, 64, dtype=torch.int64)
        mask[:, :, 32:] = 1
        mask[:, :2, :2] = 2
        right = 20 * torch.nn.functional.one_hot(mask, K).movedim(-1, 1).float()
        small, large = right.clone(), right.clone()
        small[:, :, :2, :2] = right[:, :, 10:12, :2]
        large[:, :, :2, 40:42] = right[:, :, 10:12, :2]
        loss = GeneralizedDice()
        assert loss(small, mask) > 10 * loss(large, mask) > 0
