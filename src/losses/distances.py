"""Distances to a set of pixels, on the device, for losses of outlines.

Exact, in pure PyTorch: no core dependency has a distance transform, and one on the CPU would make every step wait for the
device. So distances move with whatever the augmentation does, and the loader knows nothing of them.
"""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def squared_distance(sources: Tensor) -> Tensor:
    """Squared Euclidean distance of each pixel to the nearest source, in pixels: float32 [..., H, W], inf where there is none.

    Columns first, then rows (Felzenszwalb and Huttenlocher 2012), there by all W distances across in turn: 2 W passes over
    the maps, no other memory than a few of them, and no wait for the device.

    Args:
        sources: bool [..., H, W].
    """
    height, width = sources.shape[-2:]
    rows = torch.arange(height, device=sources.device, dtype=torch.float32).unsqueeze(-1)
    above = torch.where(sources, rows, -torch.inf).cummax(dim=-2).values
    below = torch.where(sources, rows, torch.inf).flip(-2).cummin(dim=-2).values.flip(-2)
    along = torch.minimum(rows - above, below - rows).square()
    nearest = along.clone()
    for across in range(1, width):
        step = float(across * across)
        torch.minimum(nearest[..., across:], along[..., :-across] + step, out=nearest[..., across:])
        torch.minimum(nearest[..., :-across], along[..., across:] + step, out=nearest[..., :-across])
    return nearest


def sides(inside: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances from without to the inside, and from within to what is valid and outside: float32 [B, K, H, W] each.

    Both are 0 on the other side, where a pixel is not valid, and everywhere in a map that has one side only.

    Args:
        inside: bool [B, K, H, W].
        valid: bool [B, 1, H, W].
    """
    inside, outside = inside & valid, ~inside & valid
    outer, inner = squared_distance(inside), squared_distance(outside)
    return torch.where(outside & outer.isfinite(), outer, 0.0), torch.where(inside & inner.isfinite(), inner, 0.0)
