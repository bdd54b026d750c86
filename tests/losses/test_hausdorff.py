"""The Hausdorff-distance loss against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from src.losses.hausdorff import Hausdorff
from tests.losses.batches import VOID, K, batch
from tests.losses.test_boundary import signed


class TestHausdorff:
    @pytest.mark.parametrize("alpha", [1.0, 2.0])
    @pytest.mark.parametrize("weights", [None, [1.0, 0.5, 2.0, 3.0]], ids=["plain", "weighted"])
    def test_equals_numpy(self, alpha: float, weights: list[float] | None) -> None:
        logits, mask = batch()
        mask[mask == 2] = VOID  # an absent class does not count
        z, t = logits.double().numpy(), mask.numpy()
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        costs = np.zeros(K)
        for b in range(len(t)):
            valid = t[b] != VOID
            for k in (0, 1, 3):
                distances = []
                for inside in (t[b] == k, p[b, k] > 0.5):
                    outer = signed(inside, valid)
                    distances.append(np.where(inside & (outer <= 0) & outer.astype(bool), 1 - outer, outer))
                    ring = inside & valid & (outer == 0) & (valid & ~inside).any()
                    distances[-1][ring] = 1.0
                error = (p[b, k] - (t[b] == k)) ** 2 * (distances[0] ** alpha + distances[1] ** alpha)
                costs[k] += error[valid].sum() / (t != VOID).sum()
        scale = [1.0, 1.0, 0.0, 1.0] if weights is None else [*weights[:2], 0.0, weights[3]]
        given = None if weights is None else torch.tensor(weights)
        found = float(Hausdorff(alpha, class_weights=given)(logits, mask))
        assert found == pytest.approx(np.average(costs, weights=scale), rel=1e-5)

    def test_far_mistakes_cost_more(self) -> None:
        mask = torch.zeros(1, 8, 40, dtype=torch.int64)
        mask[..., :4] = 1
        costs = []
        for column in (4, 12, 36):
            predicted = mask.clone()
            predicted[..., column] = 1
            costs.append(
                float(Hausdorff()(30 * torch.nn.functional.one_hot(predicted, 2).movedim(-1, 1).float(), mask))
            )
        assert costs[0] < costs[1] < costs[2]
