"""Tversky and focal Tversky against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from src.losses.dice import Dice
from src.losses.tversky import Tversky
from tests.losses.batches import VOID, K, batch, value_and_gradient


class TestTversky:
    @pytest.mark.parametrize("exponent", [1.0, 0.75, 2.0])
    @pytest.mark.parametrize("weights", [None, [1.0, 0.5, 2.0, 3.0]], ids=["plain", "weighted"])
    def test_equals_numpy(self, exponent: float, weights: list[float] | None) -> None:
        logits, mask = batch()
        mask[mask == 2] = VOID  # an absent class does not count
        given = None if weights is None else torch.tensor(weights)
        loss = Tversky(0.2, 0.9, exponent, smooth=0.5, class_weights=given)
        z, t = logits.double().numpy(), mask.numpy()
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        losses, present = [], []
        for k in range(K):
            q, y = p[:, k][t != VOID], t[t != VOID] == k
            if y.any():
                hits, false, missed = q[y].sum(), q[~y].sum(), (1 - q[y]).sum()
                losses.append((1 - (hits + 0.5) / (hits + 0.2 * false + 0.9 * missed + 0.5)) ** exponent)
                present.append(1.0 if weights is None else weights[k])
        assert len(losses) == 3
        assert loss(logits, mask).item() == pytest.approx(np.average(losses, weights=present), rel=1e-5)

    def test_halves_are_dice(self) -> None:
        logits, mask = batch()
        torch.testing.assert_close(Tversky(0.5, 0.5, smooth=1.0)(logits, mask), Dice(smooth=2.0)(logits, mask))

    def test_misses_cost_more_the_more_they_count(self) -> None:
        mask = torch.zeros(1, 4, 4, dtype=torch.int64)
        mask[0, 0, 0] = 1
        missed = torch.stack([torch.full((1, 4, 4), 5.0), torch.zeros(1, 4, 4)], dim=1)
        values = [float(Tversky(0.3, fn, smooth=0.1)(missed, mask)) for fn in (0.0, 0.7, 2.0)]
        assert values == sorted(values) and values[0] < values[-1]

    @pytest.mark.parametrize("exponent", [0.75, 1.0])
    def test_nothing_wrong_and_nothing_right_have_finite_gradients(self, exponent: float) -> None:
        _, mask = batch(void=0)
        logits = 1000 * torch.nn.functional.one_hot(mask, K).movedim(-1, 1).float()
        for given in (logits, -logits):
            _, gradient = value_and_gradient(Tversky(0.0, 0.0, exponent, smooth=0.0), given, mask)
            assert gradient.isfinite().all()
