"""Sums over devices, so that a mean over pixels is one over the global batch however its pixels are spread."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


class _SumOverDevices(torch.autograd.Function):
    """Sums a tensor over devices. Each device's gradient is the sum of theirs, so that DDP's mean gives the right one."""

    @staticmethod
    def forward(ctx: object, local: Tensor) -> Tensor:
        total = local.detach().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def of_this_device(local: Tensor) -> Tensor:
    return local


def sum_over_devices(local: Tensor) -> Tensor:
    """The sum of a tensor over devices; every device has to call it. Gradients as in `SegmentationLoss`."""
    together = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    return _SumOverDevices.apply(local) if together else local
