"""What a network costs on any machine: parameters that predict, and multiplications."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Counted:
    """Of one network.

    Attributes:
        parameters: those that predict; heads that only train are left out.
        multiplications: with additions (MACs), of convolutions and matrix products, for one image.
    """

    parameters: int
    multiplications: int


@torch.no_grad()
def counted(network: nn.Module, channels: int, size: Sequence[int]) -> Counted:
    """Counts a network in evaluation mode, on the meta device, for one image of a size."""
    module = copy.deepcopy(network).to("meta")
    reached: dict[int, int] = {}
    for part in module.modules():
        part.register_forward_hook(
            lambda part, _, __: reached.update({id(own): own.numel() for own in part.parameters(recurse=False)})
        )
    with FlopCounterMode(display=False) as counter:
        module(torch.empty(1, channels, *size, device="meta"))
    return Counted(sum(reached.values()), counter.get_total_flops() // 2)
