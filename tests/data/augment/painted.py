"""A sample that tells of itself whether its maps were moved together: each pixel's value is its class's."""

from __future__ import annotations

import torch
from torch import Tensor

from src.data.samples import Pixels

VOID = 255


def painted(
    size: tuple[int, int] = (64, 96), dtype: torch.dtype = torch.uint8, depth: bool = False, seed: int = 0
) -> Pixels:
    """Image = 20 * class (in all channels), depth = class + 1, of coarse blocks of four classes."""
    coarse = torch.randint(0, 4, (1, 1, 4, 4), generator=torch.Generator().manual_seed(seed)).float()
    mask = torch.nn.functional.interpolate(coarse, size)[0, 0].to(torch.uint8)
    image = (mask.float() * 20).to(dtype).expand(3, -1, -1).contiguous()
    return Pixels(image, mask, mask.float() + 1 if depth else None)


def together(pixels: Pixels, least: float = 0.8) -> bool:
    """Whether image, mask and depth agree where the mask says what is seen, but for edges between classes."""
    seen = pixels.mask != VOID
    image, mask = pixels.image[0].float(), pixels.mask.float()
    fits: Tensor = ((image - 20 * mask).abs() <= 10)[seen].float().mean() > least
    if pixels.depth is not None:
        fits = fits & torch.equal(pixels.depth.isnan(), ~seen) & (pixels.depth == mask + 1)[seen].all()
    return bool(fits) and bool(seen.any())
