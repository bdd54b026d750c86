"""Boundary loss against numpy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from src.losses.boundary import Boundary
from tests.losses.batches import VOID, K, batch, value_and_gradient


def signed(inside: npt.NDArray[np.bool_], valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Distance maps as the authors' code makes them, of pixels that are valid: 1, 2 … without, 0, -1 … within."""
    at = np.indices(inside.shape).reshape(2, -1).T
    found = np.zeros(inside.shape)
    if (inside & valid).any() and (~inside & valid).any():
        for y, x in at:
            if valid[y, x]:
                others = np.argwhere((inside != inside[y, x]) & valid)
                distance = np.sqrt(((others - (y, x)) ** 2).sum(1).min())
                found[y, x] = 1 - distance if inside[y, x] else distance
    return found


class TestBoundary:
    @pytest.mark.parametrize("weights", [None, [1.0, 0.5, 2.0, 3.0]], ids=["plain", "weighted"])
    def test_value_and_gradient_are_the_papers(self, weights: list[float] | None) -> None:
        logits, mask = batch()
        mask[mask == 2] = VOID  # an absent class does not count
        mask[1][mask[1] == 1] = VOID  # nor one in the image that does not show it
        loss = Boundary(class_weights=None if weights is None else torch.tensor(weights))
        value, gradient = value_and_gradient(loss, logits, mask)
        t = mask.numpy()
        distances = torch.tensor(np.array([[signed(m == k, m != VOID) for k in range(K)] for m in t]))
        scale = torch.tensor([1.0, 1, 0, 1] if weights is None else [1.0, 0.5, 0, 3], dtype=torch.float64)
        parameter = logits.double().requires_grad_()
        integral = parameter.softmax(1) * distances * (scale / scale.sum() / (t != VOID).sum()).view(1, -1, 1, 1)
        integral.sum().backward()
        assert parameter.grad is not None
        torch.testing.assert_close(gradient, parameter.grad.float())
        truth = torch.tensor(np.array([[m == k for k in range(K)] for m in t]))
        of_truth = (truth * distances).sum((0, 2, 3)) @ (scale / scale.sum()) / (t != VOID).sum()
        assert float(value) == pytest.approx(float(integral.detach().sum() - of_truth), rel=1e-5)

    def test_far_mistakes_cost_more(self) -> None:
        mask = torch.zeros(1, 8, 40, dtype=torch.int64)
        mask[..., :4] = 1
        costs = []
        for column in (4, 12, 36):
            predicted = mask.clone()
            predicted[..., column] = 1
            costs.append(float(Boundary()(30 * torch.nn.functional.one_hot(predicted, 2).movedim(-1, 1).float(), mask)))
        assert costs[0] < costs[1] < costs[2]
