"""Turns, tilts and bends a training sample, all of its maps in the same way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from src.data.samples import Pixels

_BEND_GRID = 128  # pixels from one control point to the next, but three a side at least


@dataclass(frozen=True)
class Warp:
    """One draw of a warp: where in the sample the pixels of a crop come from, by one resampling.

    Attributes:
        turn: degrees, counter-clockwise.
        corners: by how much each corner moves, [4, 2] as shares of half of the width and the height; None for not at all.
        bend: standard deviation of the control points, in pixels of the crop; 0 bends nothing.
    """

    turn: float
    corners: Tensor | None
    bend: float

    def margin(self, size: Sequence[int]) -> list[int]:
        """By how many pixels above and below, left and right, the pixels of a crop of this size may come from beyond it."""
        height, width = size
        sine, cosine = abs(math.sin(math.radians(self.turn))), abs(math.cos(math.radians(self.turn)))
        share = 1.0 if self.corners is None else 1.0 + float(self.corners.abs().max())
        tall, wide = height * share, width * share
        reach = (tall * cosine + wide * sine - height, wide * cosine + tall * sine - width)
        return [max(0, math.ceil(one / 2 + 3 * self.bend)) for one in reach]

    def __call__(self, pixels: Pixels, begin: Sequence[float], size: Sequence[int], ignore_index: int) -> Pixels:
        """The warped crop; the bend's control points are drawn from torch's generator.

        Args:
            pixels: what the crop is cut out of, with a margin.
            begin: row and column of the crop's upper left corner in it.
            size: height and width of the crop.
            ignore_index: fills the mask where the crop reaches beyond the pixels; the image's edge is repeated there, and the
                depth is NaN.
        """
        rows, columns = self._origins(size)
        return _sampled(pixels, rows + begin[0], columns + begin[1], ignore_index)

    def _origins(self, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Row and column, float [H, W] each, that each pixel of the crop comes from."""
        height, width = size
        y = (torch.arange(height) - (height - 1) / 2)[:, None].expand(height, width)
        x = (torch.arange(width) - (width - 1) / 2).expand(height, width)
        if self.bend:
            grid = [max(3, round(side / _BEND_GRID) + 1) for side in size]
            points = self.bend * torch.randn(1, 2, *grid)
            moves = F.interpolate(points, (height, width), mode="bicubic", align_corners=True)[0]
            y, x = y + moves[0], x + moves[1]
        if self.corners is not None:
            y, x = _tilted(y, x, self.corners, height / 2, width / 2)
        if self.turn:
            sine, cosine = math.sin(math.radians(self.turn)), math.cos(math.radians(self.turn))
            y, x = cosine * y + sine * x, cosine * x - sine * y
        return y + (height - 1) / 2, x + (width - 1) / 2


@dataclass(frozen=True)
class Geometry:
    """Draws warps.

    Attributes:
        rotation, perspective, elastic: probabilities.
        degrees: the largest turn, either way.
        tilt: the farthest that a corner moves, as a share of half of the side.
        bend: standard deviation of the control points, in pixels.
    """

    rotation: float = 0.0
    degrees: float = 0.0
    perspective: float = 0.0
    tilt: float = 0.0
    elastic: float = 0.0
    bend: float = 0.0

    def draw(self) -> Warp | None:
        """The warp of one sample, from torch's generator; None where it keeps its shape."""
        turn = (2 * float(torch.rand(())) - 1) * self.degrees if happens(self.rotation) else 0.0
        corners = (2 * torch.rand(4, 2) - 1) * self.tilt if happens(self.perspective) else None
        bend = self.bend if happens(self.elastic) else 0.0
        return Warp(turn, corners, bend) if turn or corners is not None or bend else None


def happens(probability: float) -> bool:
    """A draw from torch's generator; nothing is drawn where it cannot happen, so that draws of others stay."""
    return probability > 0 and bool(torch.rand(()) < probability)


def _tilted(y: Tensor, x: Tensor, corners: Tensor, half_height: float, half_width: float) -> tuple[Tensor, Tensor]:
    """Positions about the centre, by the perspective that moves the corners (in units of the halves) as they are given."""
    before = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64)
    after = before + corners.double()
    equations: list[list[float]] = []
    values: list[float] = []
    for (u, v), (a, b) in zip(before.tolist(), after.tolist(), strict=True):
        equations += [[u, v, 1, 0, 0, 0, -a * u, -a * v], [0, 0, 0, u, v, 1, -b * u, -b * v]]
        values += [a, b]
    h = torch.linalg.solve(torch.tensor(equations, dtype=torch.float64), torch.tensor(values, dtype=torch.float64))
    m = [float(one) for one in h]
    u, v = x / half_width, y / half_height
    depth = m[6] * u + m[7] * v + 1
    return (m[3] * u + m[4] * v + m[5]) / depth * half_height, (m[0] * u + m[1] * v + m[2]) / depth * half_width


def _sampled(pixels: Pixels, rows: Tensor, columns: Tensor, ignore_index: int) -> Pixels:
    """The maps at these positions: the image bilinear, of mask and depth the nearest pixels."""
    height, width = pixels.mask.shape[-2:]
    grid = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], dim=-1)
    image = F.grid_sample(pixels.image[None].float(), grid[None], padding_mode="border", align_corners=False)[0]
    y, x = rows.round().long(), columns.round().long()
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    at = y.clamp(0, height - 1), x.clamp(0, width - 1)
    mask = torch.where(inside, pixels.mask[at], ignore_index).to(pixels.mask.dtype)
    depth = None if pixels.depth is None else torch.where(inside, pixels.depth[at], math.nan)
    return Pixels(as_dtype(image, pixels.image.dtype), mask, depth)


def as_dtype(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Float values in an image's dtype, rounded and within its range where it is an integer one."""
    if dtype.is_floating_point:
        return values.to(dtype)
    bounds = torch.iinfo(dtype)
    return values.round().clamp(bounds.min, bounds.max).to(dtype)
