"""PIDNet's loss is the authors' where no pixel is ignored, and leaves those out that are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from src.errors import UserError
from src.losses.base import loss_of_outputs
from src.losses.ce import CrossEntropy
from src.losses.ohem import Ohem
from src.losses.pidnet import PIDNetLoss
from tests.losses.batches import VOID, K, batch


def outputs_of(logits: Tensor) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    edges = 3 * torch.randn((len(logits), 1, *logits.shape[2:]), generator=generator)
    return {"logits": logits, "aux": logits.flip(1), "edges": edges}


def outlines_by_hand(mask: Tensor, width: int) -> Tensor:
    """Whether any pixel at most `width` rows and columns away has another value."""
    result = torch.zeros_like(mask, dtype=torch.bool)
    height, breadth = mask.shape[1:]
    for row in range(height):
        for column in range(breadth):
            around = mask[:, max(row - width, 0) : row + width + 1, max(column - width, 0) : column + width + 1]
            result[:, row, column] = (around != mask[:, row : row + 1, column : column + 1]).flatten(1).any(dim=1)
    return result


def test_is_the_sum_of_its_four_parts() -> None:
    logits, _ = batch(void=0)
    mask = torch.zeros(2, 9, 7, dtype=torch.long)
    mask[0, :, 3:], mask[1, 6:] = 2, 1
    outputs = outputs_of(logits)
    edges, target = outputs["edges"][:, 0], outlines_by_hand(mask, 1)
    # Each pixel weighs as much as the share of the other kind, as in the authors' weighted_bce.
    share = target.float().mean()
    weight = torch.where(target, 1 - share, share)
    boundary = (F.binary_cross_entropy_with_logits(edges, target.float(), reduction="none") * weight).mean()
    at_edges = torch.where(edges.sigmoid() > 0.8, mask, VOID)
    assert 0 < (at_edges != VOID).float().mean() < 1
    expected = (
        CrossEntropy()(logits, mask)
        + CrossEntropy()(logits, at_edges)
        + 0.4 * CrossEntropy()(outputs["aux"], mask)
        + 20 * boundary
    )
    loss = PIDNetLoss(edge_width=1, threshold=1.0, min_kept=0.0)
    torch.testing.assert_close(loss.of_outputs(outputs, mask), expected)
    del outputs["aux"]
    without = loss.of_outputs(outputs, mask)
    torch.testing.assert_close(expected - without, 0.4 * CrossEntropy()(logits.flip(1), mask))


def test_ignored_pixels_change_neither_the_value_nor_a_gradient() -> None:
    logits, mask = batch(shape=(2, 12, 16))
    mask[:], mask[:, 2:, 9:], mask[:, 8:, :3] = 0, 1, VOID  # pixels of either kind
    outputs = {name: value.requires_grad_() for name, value in outputs_of(logits).items()}
    void = (mask == VOID).unsqueeze(1)
    other = {name: torch.where(void, 5 - value, value).detach().requires_grad_() for name, value in outputs.items()}
    values = []
    for given in (outputs, other):
        values.append(PIDNetLoss(edge_width=1).of_outputs(given, mask))
        values[-1].backward()
    torch.testing.assert_close(values[0], values[1])
    for name, value in outputs.items():
        assert value.grad is not None and other[name].grad is not None
        torch.testing.assert_close(value.grad, other[name].grad)
        assert (value.grad[void.expand_as(value)] == 0).all()
        assert value.grad.abs().sum() > 0


def test_only_ignored_pixels_cost_nothing() -> None:
    logits, mask = batch(void=1.0)
    assert PIDNetLoss().of_outputs(outputs_of(logits), mask) == 0


def test_in_evaluation_it_is_ohem() -> None:
    logits, mask = batch()
    assert torch.equal(PIDNetLoss()(logits, mask), Ohem(0.9, 0.0208)(logits, mask))


def test_a_network_without_boundaries_is_refused() -> None:
    logits, mask = batch()
    with pytest.raises(UserError, match=r"network\.boundary=true"):
        PIDNetLoss().of_outputs({"logits": logits}, mask)


def test_ohem_among_some_keeps_as_many_as_of_all() -> None:
    logits, mask = batch(void=0)
    chosen = torch.zeros_like(mask, dtype=torch.bool)
    chosen[:, :2] = True
    costs = F.cross_entropy(logits, mask, reduction="none")
    kept = -(-mask.numel() // 10)
    assert kept < chosen.sum()
    expected = costs[chosen].sort(descending=True).values[:kept].mean()
    torch.testing.assert_close(Ohem(0.0, 0.1).among(logits, mask, chosen), expected)


def test_a_plain_loss_weighs_every_auxiliary_head() -> None:
    logits, mask = batch()
    outputs = {"logits": logits, "aux": 2 * logits, "aux2": -logits, "edges": logits[:, :1]}
    loss = CrossEntropy()
    expected = loss(logits, mask) + 0.3 * (loss(2 * logits, mask) + loss(-logits, mask))
    torch.testing.assert_close(loss_of_outputs(loss, outputs, mask, 0.3), expected)
    assert outputs["logits"].shape[1] == K
