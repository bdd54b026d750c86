"""Batches for tests of losses."""

from __future__ import annotations

import torch
from torch import Tensor, nn

K, VOID = 4, 255


def batch(seed: int = 0, void: float = 0.3, shape: tuple[int, int, int] = (2, 9, 7)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn((shape[0], K, *shape[1:]), generator=generator)
    mask = torch.randint(0, K, shape, generator=generator)
    mask[torch.rand(shape, generator=generator) < void] = VOID
    return logits, mask


def value_and_gradient(loss: nn.Module, logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    logits = logits.detach().requires_grad_()
    value = loss(logits, mask)
    value.backward()
    assert logits.grad is not None
    return value.detach(), logits.grad
