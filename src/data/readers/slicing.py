"""`Slicing` makes images of the slices of volumes: neighbours as channels, intensities, resolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from src.data.readers.volume import OF_CT, Array, Axis, Volume
from src.errors import UserError

_AIR = -200.0  # Hounsfield units that a CT without anything below is rare
_FULL_SCALE = 65535.0  # the range that percentiles are stretched to, in uint16


@dataclass(frozen=True)
class Slicing:
    """How slices become images; what a checkpoint must keep to segment another volume.

    Args:
        axis: the direction that slices are stacked in.
        neighbors: slices at each side that are further channels; at the ends the last slice is repeated.
        window: centre and width in the volume's own units (Hounsfield units of CT); None stretches each volume.
        percentiles: of a volume's values, stretched to the full range where there is no window.
        spacing: mm of a pixel that slices are resampled to; None keeps them.

    Raises:
        UserError: the window or the percentiles are no range.
    """

    axis: Axis
    neighbors: int = 0
    window: Sequence[float] | None = None
    percentiles: Sequence[float] = (1.0, 99.0)
    spacing: float | None = None
    _ranges: dict[str, tuple[float, float]] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if self.window is not None and (len(self.window) != 2 or not self.window[1] > 0):
            raise UserError(
                f"data.dataset.window: should be [center, width] with a width above 0, not {list(self.window)}"
            )
        if len(self.percentiles) != 2 or not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise UserError(
                f"data.dataset.percentiles: should be [low, high] within 0 to 100, not {list(self.percentiles)}"
            )

    @property
    def channels(self) -> int:
        return 2 * self.neighbors + 1

    @property
    def intensity(self) -> tuple[float, float]:
        """The range that the model maps to 0…1: the window's ends, or that of uint16."""
        if self.window is None:
            return 0.0, _FULL_SCALE
        center, width = self.window
        return center - width / 2, center + width / 2

    def doubt(self, volume: Volume) -> str | None:
        """Why a volume's values may not be the window's, in words that follow "is"; None where nothing speaks against it.

        A window that begins below -100 is in Hounsfield units, and a CT without any air is rare; scanners and converters that
        store it with an offset (air at 0) are not.
        """
        if self.window is None or self.intensity[0] > OF_CT:
            return None
        lowest = volume.lowest()
        if not lowest > _AIR:
            return None
        return (
            f"without a value below {_AIR:g} (its lowest is {lowest:g}), and the window from {self.intensity[0]:g} to "
            f"{self.intensity[1]:g} is in Hounsfield units, of which air has -1000: is it a CT, with its offset taken off?"
        )

    def image(self, volume: Volume, index: int) -> Tensor:
        """Slice `index` with its neighbours, [2 neighbors + 1, h, w].

        With a window in the volume's own values: int16 where it holds whole numbers, else float32. Without, uint16.

        Raises:
            UserError: the volume cannot be read or has one value only.
        """
        last = volume.length(self.axis) - 1
        wanted = [min(max(i, 0), last) for i in range(index - self.neighbors, index + self.neighbors + 1)]
        low, high = self.intensity if self.window is not None else self._range(volume)
        planes = {i: _finite(volume.slice(self.axis, i), low, high) for i in set(wanted)}
        values = torch.from_numpy(np.stack([planes[i] for i in wanted]))
        if self.spacing is not None:
            values = torch.nn.functional.interpolate(
                values[None], self.size(volume), mode="bilinear", antialias=True, align_corners=False
            )[0]
        if self.window is not None:
            return values.round().to(torch.int16) if volume.whole else values
        scaled = ((values - low) / (high - low)).clamp(0, 1) * _FULL_SCALE
        return scaled.round().to(torch.int32).to(torch.uint16)

    def mask(self, values: Array, volume: Volume, resampled: bool) -> Tensor:
        """Classes uint8 [h, w] of a slice; `resampled` as its image is (nearest), to train with, else in the volume's own
        pixels, which are what is scored."""
        mask = torch.from_numpy(np.ascontiguousarray(values))
        if self.spacing is None or not resampled:
            return mask
        return torch.nn.functional.interpolate(mask[None, None], self.size(volume), mode="nearest-exact")[0, 0]

    def size(self, volume: Volume) -> tuple[int, int]:
        """Height and width of the image that a slice becomes."""
        columns, rows = volume.plane_shape(self.axis)
        if self.spacing is None:
            return rows, columns
        height, width = volume.pixel_size(self.axis)
        return max(1, round(rows * height / self.spacing)), max(1, round(columns * width / self.spacing))

    def _range(self, volume: Volume) -> tuple[float, float]:
        key = str(volume.file)
        if key not in self._ranges:
            self._ranges[key] = volume.percentiles((self.percentiles[0], self.percentiles[1]))
        return self._ranges[key]


def _finite(plane: Array, low: float, high: float) -> Array:
    """float32 without NaN and infinity, which would spread through the network."""
    values = plane.astype(np.float32)
    return values if np.isfinite(values).all() else np.nan_to_num(values, nan=low, neginf=low, posinf=high)
