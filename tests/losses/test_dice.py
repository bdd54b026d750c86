"""Soft Dice against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from src.losses.dice import Dice
from tests.losses.batches import VOID, K, batch


class TestDice:
    @pytest.mark.parametrize("smooth", [0.0, 1.0])
    @pytest.mark.parametrize("weights", [None, [1.0, 0.5, 2.0, 3.0]], ids=["plain", "weighted"])
    def test_equals_numpy(self, smooth: float, weights: list[float] | None) -> None:
        logits, mask = batch()
        mask[mask == 2] = VOID  # an absent class does not count
        loss = Dice(smooth, class_weights=None if weights is None else torch.tensor(weights))
        z, t = logits.double().numpy(), mask.numpy()
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        losses, present = [], []
        for k in range(K):
            q, y = p[:, k][t != VOID], t[t != VOID] == k
            if y.any():
                losses.append(1 - (2 * (q * y).sum() + smooth) / (q.sum() + y.sum() + smooth))
                present.append(1.0 if weights is None else weights[k])
        assert len(losses) == 3
        expected = np.average(losses, weights=present)
        assert loss(logits, mask).item() == pytest.approx(expected, rel=1e-5)
