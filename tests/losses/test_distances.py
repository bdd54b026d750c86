"""Distances against all pairs of pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from src.losses.distances import sides, squared_distance


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (7, 12), (16, 5)])
@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
def test_equals_all_pairs(size: tuple[int, int], share: float) -> None:
    for seed in range(5):
        sources = torch.rand(2, *size, generator=torch.Generator().manual_seed(seed)) < share
        found = squared_distance(sources).numpy()
        at = np.indices(size).reshape(2, -1)
        for one, distances in zip(sources.numpy(), found, strict=True):
            there = np.argwhere(one)
            pairs = ((at.T[:, None] - there[None]) ** 2).sum(-1)
            expected = pairs.min(axis=1) if len(there) else np.full(at.shape[1], np.inf)
            assert np.array_equal(distances.ravel(), expected)


def test_sides_leave_out_what_is_not_valid_and_what_has_one_side() -> None:
    inside = torch.zeros(1, 3, 4, 6, dtype=torch.bool)
    inside[0, 0, :, :3] = True  # left half; then nothing, then all
    inside[0, 2] = True
    valid = torch.ones(1, 1, 4, 6, dtype=torch.bool)
    valid[..., 2] = False  # the inside begins at column 1
    outer, inner = sides(inside, valid)
    assert outer[0, 0, 0].tolist() == [0, 0, 0, 4, 9, 16]
    assert inner[0, 0, 0].tolist() == [9, 4, 0, 0, 0, 0]
    assert not outer[0, 1:].any() and not inner[0, 1:].any()
