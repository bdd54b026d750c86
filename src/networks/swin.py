"""Swin Transformers (Liu et al. 2021, 2022) of timm on images of any size, as mmsegmentation and transformers have them."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.swin_transformer_v2 import SwinTransformerV2Block
from torch import Tensor, nn


class _PaddedFirst(nn.Module):
    """A block that pads maps to whole windows before it shifts them. timm's pads them after, so that the border's pixels are
    among others in their windows than those that the weights were trained with."""

    window_size: tuple[int, int]

    def _attn(self, maps: Tensor) -> Tensor:
        _, height, width, _ = maps.shape
        below, right = -height % self.window_size[0], -width % self.window_size[1]
        attended: Tensor = super()._attn(F.pad(maps, (0, 0, 0, right, 0, below)))  # type: ignore[misc]
        return attended[:, :height, :width]


class _Block(_PaddedFirst, SwinTransformerBlock):
    pass


class _BlockV2(_PaddedFirst, SwinTransformerV2Block):
    pass


def take_any_size(network: nn.Module) -> None:
    """Makes the blocks of a network's Swin Transformers pad before they shift, and shift in every stage: timm's do not where
    the images of their training had one window only."""
    for block in network.modules():
        for theirs, ours in ((SwinTransformerBlock, _Block), (SwinTransformerV2Block, _BlockV2)):
            if type(block) is theirs:
                block.__class__ = ours
                resolution: Any = block.input_resolution
                window: Any = block.window_size
                block.set_input_size(resolution, window, always_partition=True)
