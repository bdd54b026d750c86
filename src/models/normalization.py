"""Scaling and normalising of raw images, as part of the model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalization(nn.Module):
    """Maps raw image values to 0…1 by their range, then to (x - mean) / std.

    Args:
        intensity: lowest and highest raw value; (0, 255) for 8-bit images. Values outside are clipped.
        mean, std: per channel (or one for all), in units of 0…1.
        channels: image channels.
    """

    offset: Tensor
    scale: Tensor

    def __init__(
        self, intensity: tuple[float, float], mean: Sequence[float], std: Sequence[float], channels: int
    ) -> None:
        super().__init__()
        low, high = intensity
        self.low, self.high = float(low), float(high)
        means = torch.tensor(_per_channel(mean, channels), dtype=torch.float64)
        stds = torch.tensor(_per_channel(std, channels), dtype=torch.float64)
        # (x - low) / (high - low) = u; (u - mean) / std = x * scale + offset
        scale = 1 / ((high - low) * stds)
        offset = -low * scale - means / stds
        self.register_buffer("scale", scale.float().view(1, -1, 1, 1))
        self.register_buffer("offset", offset.float().view(1, -1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Image [B, C, H, W] of any dtype to float32 of the same shape."""
        values = image.to(self.scale.dtype)
        if image.dtype != torch.uint8:
            values = values.clamp(self.low, self.high)
        return values * self.scale + self.offset


def _per_channel(values: Sequence[float], channels: int) -> list[float]:
    listed = [float(v) for v in values]
    return listed if len(listed) == channels else [sum(listed) / len(listed)] * channels
