"""STDC's loss is the authors' where no pixel is ignored, and leaves those out that are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from src.errors import UserError
from src.losses.ce import CrossEntropy
from src.losses.stdc import STDCLoss, details
from tests.losses.batches import VOID, batch


def fused(mask: Tensor) -> Tensor:
    """The paper's target: Laplacians of strides 1, 2 and 4, fused with 0.6, 0.3 and 0.1, above 0.1."""
    kernel = -torch.ones(1, 1, 3, 3)
    kernel[..., 1, 1] = 8
    size = mask.shape[-2:]
    total = torch.zeros(len(mask), 1, *size)
    for stride, weight in ((1, 0.6), (2, 0.3), (4, 0.1)):
        found = F.conv2d(mask.float().unsqueeze(1), kernel, stride=stride, padding=1) > 0.1
        total += weight * F.interpolate(found.float(), size, mode="nearest")
    return (total > 0.1 + 1e-6).squeeze(1)


@pytest.mark.parametrize("size", [(16, 24), (8, 8)])
def test_details_are_the_papers(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    mask = F.interpolate(torch.randint(0, 5, (3, 1, 4, 4), generator=generator).float(), size).squeeze(1).long()
    expected = fused(mask)
    assert 0.05 < expected.float().mean() < 0.95
    assert torch.equal(details(mask), expected)


def test_details_of_an_odd_size() -> None:
    mask = torch.zeros(1, 7, 5, dtype=torch.long)
    mask[:, 3:, 2:] = 1
    assert details(mask).shape == mask.shape
    assert not details(mask)[:, :2].any()


def test_is_the_sum_of_its_parts() -> None:
    logits, mask = batch(void=0, shape=(2, 8, 12))
    edges = logits[:, :1] - 0.5
    target = fused(mask).float()
    probability = edges[:, 0].sigmoid()
    dice = 1 - (2 * (probability * target).sum((1, 2)) + 1) / (probability.sum((1, 2)) + target.sum((1, 2)) + 1)
    expected = (
        CrossEntropy()(logits, mask)
        + CrossEntropy()(-logits, mask)
        + CrossEntropy()(logits.flip(1), mask)
        + F.binary_cross_entropy_with_logits(edges[:, 0], target)
        + dice.mean()
    )
    outputs = {"logits": logits, "aux": -logits, "aux2": logits.flip(1), "edges": edges}
    torch.testing.assert_close(STDCLoss(threshold=1.0).of_outputs(outputs, mask), expected)


def test_ignored_pixels_change_nothing() -> None:
    logits, mask = batch()
    void = (mask == VOID).unsqueeze(1)
    outputs = {"logits": logits, "edges": logits[:, :1]}
    other = {name: torch.where(void, 5 - value, value) for name, value in outputs.items()}
    torch.testing.assert_close(STDCLoss().of_outputs(outputs, mask), STDCLoss().of_outputs(other, mask))
    logits, mask = batch(void=1.0)
    assert STDCLoss().of_outputs({"logits": logits, "edges": logits[:, :1]}, mask) == 0


def test_a_network_without_details_is_refused() -> None:
    logits, mask = batch()
    with pytest.raises(UserError, match=r"network\.boundary=true"):
        STDCLoss().of_outputs({"logits": logits}, mask)
