"""Soft clDice: centrelines of lines, and what breaks them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from src.losses.cldice import ClDice, soft_skeleton
from src.losses.dice import Dice
from tests.losses.batches import VOID, batch


def sure(mask: Tensor, classes: int = 2) -> Tensor:
    return 30 * torch.nn.functional.one_hot(mask, classes).movedim(-1, 1).float()


def tube(rows: slice = slice(8, 13)) -> Tensor:
    mask = torch.zeros(1, 24, 40, dtype=torch.int64)
    mask[:, rows, 4:36] = 1
    return mask


ALL = torch.ones(1, 1, 24, 40, dtype=torch.bool)


def test_a_tubes_skeleton_is_its_middle_row() -> None:
    skeleton = soft_skeleton(tube()[:, None].float(), ALL, 3)[0, 0]
    assert set(skeleton.unique().tolist()) == {0.0, 1.0}
    middle = skeleton[:, 8:32]
    assert (middle[10] == 1).all() and middle.sum() == 24


def test_equals_numpy_of_skeletons() -> None:
    logits, mask = batch(void=0.2, shape=(2, 12, 14))
    weights = [1.0, 0.5, 2.0, 3.0]
    valid = (mask != VOID).unsqueeze(1)
    truth = (mask.unsqueeze(1) == torch.arange(4).view(1, -1, 1, 1)).float()
    p = logits.softmax(1) * valid
    lines, true_lines = (soft_skeleton(x, valid, 2).double().numpy() for x in (p, truth))
    losses = []
    for k in range(1, 4):
        v, g = p[:, k].double().numpy(), truth[:, k].double().numpy()
        precision = ((lines[:, k] * g).sum() + 1) / (lines[:, k].sum() + 1)
        recall = ((true_lines[:, k] * v).sum() + 1) / (true_lines[:, k].sum() + 1)
        losses.append(1 - 2 * precision * recall / (precision + recall))
    found = ClDice(2, class_weights=torch.tensor(weights))(logits, mask)
    assert float(found) == pytest.approx(np.average(losses, weights=weights[1:]), rel=1e-5)
    assert float(ClDice(2)(logits, mask)) == pytest.approx(np.mean(losses), rel=1e-5)


def test_a_gap_costs_more_than_a_thinner_tube() -> None:
    mask = tube()
    gap, thin = mask.clone(), tube(slice(9, 12))
    gap[:, :, 18:22] = 0
    assert (gap != mask).sum() < (thin != mask).sum()
    loss = ClDice()
    assert loss(sure(gap), mask) > 3 * loss(sure(thin), mask)
    assert Dice()(sure(gap), mask) < Dice()(sure(thin), mask)


def test_background_counts_where_it_is_asked_for() -> None:
    logits, mask = batch(shape=(2, 12, 14))
    assert ClDice(background=True)(logits, mask) != ClDice()(logits, mask)
    mask[mask != VOID] = 0
    assert ClDice()(logits, mask) == 0


def test_is_finite_without_smoothing_where_nothing_meets() -> None:
    mask = tube()
    logits = sure(1 - mask).requires_grad_()
    value = ClDice(smooth=0.0)(10 * logits, mask)
    value.backward()
    assert value == 1
    assert logits.grad is not None and logits.grad.isfinite().all()
