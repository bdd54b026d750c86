"""L1 compares images, and only where a class is known."""

from __future__ import annotations

import torch

from src.losses.l1 import L1


def test_ignored_pixels_count_nothing() -> None:
    drawn, real = torch.zeros(1, 2, 2, 2, requires_grad=True), torch.ones(1, 2, 2, 2)
    real[0, 1] = 3
    mask = torch.tensor([[[0, 255], [1, 255]]])
    real[..., 1] = 99
    value = L1()(drawn, real, mask)
    assert float(value.detach()) == 2.0 and value.dtype == torch.float32
    value.backward()
    assert drawn.grad is not None and (drawn.grad[..., 1] == 0).all() and (drawn.grad[..., 0] != 0).all()
    assert float(L1()(drawn.detach(), real, torch.full_like(mask, 255))) == 0
