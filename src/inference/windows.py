"""Windows over an image: where they lie, how what they give is averaged, row of windows by row of windows.

The grid is that of mmsegmentation's sliding window: windows begin every `stride` pixels, and the last ones are moved back until
they end with the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, Protocol

import torch
from torch import Tensor

Outputs = dict[str, Tensor]  # maps [B, C, h, w] by name
Run = Callable[[Tensor], Outputs]  # one pass of a network over raw images [B, C, h, w]
Strip = tuple[int, Outputs]  # the first row, and the maps from there on

_ON_DEVICE = 2**28  # values that are summed on the device (1 GiB); more are summed in the host's memory
_LEAST = 1e-3  # weight of a window's corners, of its middle's


class Readable(Protocol):
    """Raw images of one size that are read piece by piece."""

    height: int
    width: int
    mirrored: bool  # left for right

    def read(self, top: int, left: int, height: int, width: int) -> Tensor:
        """Pixels [B, C, height, width] on the network's device."""


class InMemory:
    """Raw images [B, C, H, W] in memory.

    Args:
        image: in any memory.
        device: where pieces of it are wanted.
        mirrored: left for right.
    """

    def __init__(self, image: Tensor, device: torch.device, mirrored: bool = False) -> None:
        self.image, self.device, self.mirrored = image, device, mirrored
        self.height, self.width = image.shape[-2:]

    def read(self, top: int, left: int, height: int, width: int) -> Tensor:
        if self.mirrored:
            left = self.width - left - width
        piece = self.image[..., top : top + height, left : left + width]
        return (piece.flip(-1) if self.mirrored else piece).to(self.device)


def starts(length: int, side: int, step: int) -> list[int]:
    """First pixels of windows that cover `length` pixels; one window where it is as long as that."""
    count = max(length - side + step - 1, 0) // step + 1
    return [max(min(i * step + side, length) - side, 0) for i in range(count)]


def blend_weights(height: int, width: int, blend: Literal["mean", "gaussian"]) -> Tensor:
    """What each pixel of a window counts, float32 [height, width], at most 1."""
    if blend == "mean":
        return torch.ones(height, width)
    rows, columns = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2 for n in (height, width))
    down, across = (-(at**2) / (2 * (n / 8) ** 2) for at, n in ((rows, height), (columns, width)))
    return (down[:, None] + across[None, :]).exp().clamp_min(_LEAST).float()


def windowed(
    run: Run, image: Readable, window: tuple[int, int], step: tuple[int, int], blend: Literal["mean", "gaussian"],
    batch: int,
) -> Iterator[Strip]:  # fmt: skip
    """Averages of what windows give, strip by strip from the top; memory holds one row of windows.

    Args:
        run: one pass.
        image: what the windows are cut out of.
        window, step: height and width.
        blend: how overlapping windows count.
        batch: windows in a pass.

    Returns:
        Strips that follow one another and cover the image.
    """
    height, width = min(window[0], image.height), min(window[1], image.width)
    tops, lefts = starts(image.height, height, step[0]), starts(image.width, width, step[1])
    if len(tops) == len(lefts) == 1:  # no average, so that no bit differs from the whole image's
        yield 0, run(image.read(0, 0, height, width))
        return
    weights = blend_weights(height, width, blend)
    sums: Outputs = {}
    counted = torch.zeros(height, image.width)
    for top, following in zip(tops, [*tops[1:], image.height], strict=True):
        for first in range(0, len(lefts), batch):
            chosen = lefts[first : first + batch]
            pieces = torch.cat([image.read(top, left, height, width) for left in chosen])
            for name, values in run(pieces).items():
                values = values.float()
                if name not in sums:
                    each = len(values) // len(chosen)
                    shape = (each, values.shape[1], height, image.width)
                    on = values.device if each * shape[1] * height * image.width <= _ON_DEVICE else torch.device("cpu")
                    sums[name] = torch.zeros(shape, device=on)
                total = sums[name]
                weighted = values.to(total.device) * weights.to(total.device)
                for left, part in zip(chosen, weighted.chunk(len(chosen)), strict=True):
                    total[..., left : left + width] += part
            for left in chosen:
                counted[:, left : left + width] += weights
        done = following - top
        yield top, {name: total[..., :done, :] / counted[:done].to(total.device) for name, total in sums.items()}
        if following < image.height:
            for total in (*sums.values(), counted):
                _move_up(total, done)


def _move_up(total: Tensor, rows: int) -> None:
    """Drops the first rows, moves the others up and begins new ones at 0, without a second copy of them all."""
    kept = total.shape[-2] - rows
    total[..., :kept, :] = total[..., rows:, :].clone()
    total[..., kept:, :] = 0
