"""A generator of images from label maps (Park et al. 2019, SPADE), with a style of its own for each class of an image."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

TRAINS_ON = "images"  # what its losses see, in the stead of logits

_SLOPE = 0.2  # of LeakyReLU
_WIDEST = 4  # times `width`
Depth = Annotated[int, Field(ge=1, le=8)]


class Spade(nn.Module):
    """Draws an image by a label map and a code of each class, and finds the codes of an image.

    Every normalisation is undone by a scale and a shift that the label map says at each pixel. One layer of 3 x 3 reads the map
    for a whole block, where the paper has one for each normalisation and two more for scale and shift. The map carries the
    codes: all pixels of a class have its code, as the noise of OASIS (Sushko et al. 2021) is drawn by regions, so that a class
    may look otherwise in each image. Codes of an image are the mean features of each class's pixels (SEAN, Zhu et al. 2020),
    as a normal distribution (SPADE's image encoder).

    Args:
        num_classes: classes K.
        in_channels: image channels C.
        width: channels of the last level; doubled at each coarser one, up to 4 times.
        depth: halvings of the image's size to the coarsest level.
        latent: length Z of a class's code.
        hidden: channels of the layers that read the label map.
    """

    def __init__(self, num_classes: int, in_channels: int, width: int, depth: int, latent: int, hidden: int) -> None:
        super().__init__()
        self.num_classes, self.depth, self.latent = num_classes, depth, latent
        seen = num_classes + latent
        widths = [width * min(2**level, _WIDEST) for level in range(depth, -1, -1)]
        self.first = nn.Conv2d(seen, widths[0], 3, padding=1)
        before = [widths[0], *widths[:-1]]
        self.blocks = nn.ModuleList(_Block(a, b, seen, hidden) for a, b in zip(before, widths, strict=True))
        self.last = nn.Conv2d(widths[-1], in_channels, 3, padding=1)
        self.style = nn.Sequential(
            nn.Conv2d(in_channels, hidden, 3, padding=1), nn.LeakyReLU(_SLOPE),
            nn.Conv2d(hidden, hidden, 3, padding=1), nn.LeakyReLU(_SLOPE),
        )  # fmt: skip
        self.code = nn.Linear(hidden, 2 * latent)

    def forward(self, label_map: Tensor, codes: Tensor) -> Tensor:
        """Images float [B, C, H, W] in -1…1.

        Args:
            label_map: float [B, K, H, W], one-hot; zeros where no class is known.
            codes: float [B, K, Z].
        """
        height, width = label_map.shape[-2:]
        seen = torch.cat([label_map, torch.einsum("bkhw,bkz->bzhw", label_map, codes)], dim=1)
        step = 2**self.depth
        seen = F.pad(seen, (0, -width % step, 0, -height % step))
        maps = [seen]
        for _ in range(self.depth):
            maps.append(F.interpolate(maps[-1], scale_factor=0.5, mode="nearest"))
        x = self.first(maps[-1])
        for level, block in enumerate(self.blocks):
            if level:
                x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = block(x, maps[self.depth - level])
        drawn: Tensor = self.last(F.leaky_relu(x, _SLOPE)).tanh()
        return drawn[..., :height, :width]

    def codes(self, image: Tensor, label_map: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance, each float [B, K, Z], of the codes of an image float [B, C, H, W] in -1…1; 0 of a class that
        its map, as in `forward`, does not show."""
        features = self.style(image)
        pixels = label_map.sum(dim=(2, 3)).unsqueeze(-1)
        pooled = torch.einsum("bkhw,bchw->bkc", label_map, features) / pixels.clamp_min(1)
        mean, log_variance = self.code(pooled).masked_fill(pixels == 0, 0).chunk(2, dim=-1)
        return mean, log_variance.clamp(-10, 10)


class _Block(nn.Module):
    """SPADE's residual block: two convolutions, each of a modulated input."""

    def __init__(self, before: int, after: int, seen: int, hidden: int) -> None:
        super().__init__()
        middle = min(before, after)
        self.read = nn.Conv2d(seen, hidden, 3, padding=1)
        self.modulations = nn.ModuleList(nn.Conv2d(hidden, 2 * n, 1) for n in (before, middle))
        self.convolutions = nn.ModuleList(
            [nn.Conv2d(before, middle, 3, padding=1), nn.Conv2d(middle, after, 3, padding=1)]
        )
        self.shortcut = nn.Conv2d(before, after, 1, bias=False) if before != after else nn.Identity()

    def forward(self, x: Tensor, label_map: Tensor) -> Tensor:
        read = F.relu(self.read(label_map))
        result = x
        for modulation, convolution in zip(self.modulations, self.convolutions, strict=True):
            scale, shift = modulation(read).chunk(2, dim=1)
            result = convolution(F.leaky_relu(F.instance_norm(result) * (1 + scale) + shift, _SLOPE))
        together: Tensor = self.shortcut(x) + result
        return together


def spade(
    num_classes: int,
    in_channels: int,
    width: PositiveInt = 16,
    depth: Depth = 3,
    latent: PositiveInt = 8,
    hidden: PositiveInt = 16,
) -> Spade:
    """SPADE's generator (see `Spade`); for images of 256 pixels a side the paper has width 64, depth 5 and hidden 128.

    Args:
        num_classes: classes K.
        in_channels: image channels C.
        width: channels of the last level; doubled at each coarser one, up to 4 times.
        depth: halvings of the image's size to the coarsest level.
        latent: length of a class's code.
        hidden: channels of the layers that read the label map.
    """
    return Spade(num_classes, in_channels, width, depth, latent, hidden)
