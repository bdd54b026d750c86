"""`Volume` gives slices that all look the same way, whatever the orientation of the volume on disk."""

from __future__ import annotations

import functools
import math
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from src.errors import UserError
from src.optional_packages import needs

Array = npt.NDArray[np.generic]
Axis = Literal["axial", "coronal", "sagittal"]
_CANONICAL: dict[str, int] = {"sagittal": 0, "coronal": 1, "axial": 2}  # of RAS
OF_CT = -100.0  # Hounsfield units: a range that begins below is fat, lung or air, and no other modality's
_KEPT = 4  # decoded volumes a process holds
_SAMPLED = 2_000_000  # voxels that percentiles are taken of
_TOLERANCE = 0.1  # voxels that two grids may be apart and still be one

_decoded: OrderedDict[tuple[str, int], Array] = OrderedDict()
_decoding = threading.Lock()


@dataclass(frozen=True)
class Volume:
    """Voxels in the order of the file, and where they lie in the patient.

    Args:
        file: the file or folder, for messages.
        shape: of the array that `load` gives.
        affine: float64 [4, 4] from indices of that array to mm, RAS+ (right, anterior, superior).
        load: reads the voxels; memory-mapped where the file allows it.
        version: when the file was last written, in ns, so that a process does not keep voxels of a file that was replaced.
        slope, intercept: stored value times slope plus intercept is the value.
        whole: whether all values are whole numbers that fit int16.
        modality: DICOM's word, e.g. "CT"; None where the format has none.
        doubts: what the headers leave open, in words that follow "is".
        slices: the files of its slices, in order along the last axis, where each has its own.
    """

    file: Path
    shape: tuple[int, int, int]
    affine: npt.NDArray[np.float64]
    load: Callable[[], Array]
    version: int
    slope: float = 1.0
    intercept: float = 0.0
    whole: bool = False
    modality: str | None = None
    doubts: tuple[str, ...] = ()
    slices: tuple[Path, ...] = ()

    @functools.cached_property
    def _order(self) -> list[tuple[int, int]]:
        """For each array axis, the canonical (RAS) axis and 1 or -1 for its direction."""
        orientation: npt.NDArray[np.float64] = needs("nibabel.orientations", "medical").io_orientation(self.affine)
        if not np.isfinite(orientation).all():
            raise UserError(f"{self.file}: its affine is singular, so its orientation is unknown; write a valid one")
        return [(int(axis), int(direction)) for axis, direction in orientation]

    @property
    def canonical_shape(self) -> tuple[int, ...]:
        """Voxels from left to right, posterior to anterior, inferior to superior."""
        return tuple(self.shape[self._disk_axis(axis)] for axis in range(3))

    @functools.cached_property
    def canonical_affine(self) -> npt.NDArray[np.float64]:
        """Float64 [4, 4] from canonical indices to mm."""
        orientations = needs("nibabel.orientations", "medical")
        affine: npt.NDArray[np.float64] = self.affine @ orientations.inv_ornt_aff(np.array(self._order), self.shape)
        return affine

    def length(self, axis: Axis) -> int:
        """Slices along `axis`."""
        return self.canonical_shape[_CANONICAL[axis]]

    def plane_shape(self, axis: Axis) -> tuple[int, int]:
        """Voxels of a slice along its two canonical axes: its width and its height."""
        first, second = (n for a, n in enumerate(self.canonical_shape) if a != _CANONICAL[axis])
        return first, second

    def pixel_size(self, axis: Axis) -> tuple[float, float]:
        """Height and width of a slice's pixel in mm."""
        column, row = (float(np.linalg.norm(self.canonical_affine[:3, a])) for a in range(3) if a != _CANONICAL[axis])
        return row, column

    def slice_distance(self, axis: Axis) -> float:
        """From slice to slice in mm."""
        return float(np.linalg.norm(self.canonical_affine[:3, _CANONICAL[axis]]))

    def view(self, array: Array, axis: Axis, index: int) -> Array:
        """A slice [h, w] of an array in the file's order, as a view of it.

        Slice 0 is the leftmost, the most posterior or the lowest. It is shown as radiologists do: what is superior (in
        axial slices, anterior) is above, the patient's right (in sagittal slices, the front) is at the left.
        """
        across = self._disk_axis(_CANONICAL[axis])
        at = index if self._order[across][1] == 1 else self.shape[across] - 1 - index
        part = array[tuple(at if a == across else slice(None) for a in range(3))]
        rest = [self._order[a] for a in range(3) if a != across]
        part = part[tuple(slice(None, None, direction) for _, direction in rest)]
        if rest[0][0] > rest[1][0]:
            part = part.T
        return part[::-1, ::-1].T

    def slice(self, axis: Axis, index: int) -> Array:
        """Values [h, w] of one slice; integers where the file stores values as integers, else float32.

        Raises:
            UserError: the file cannot be read.
        """
        stored = self.view(self.stored(), axis, index)
        if (self.slope, self.intercept) == (1, 0):
            return np.asarray(stored)
        return stored.astype(np.float32) * np.float32(self.slope) + np.float32(self.intercept)

    def stored(self) -> Array:
        """All voxels as they are stored, in the file's order; the last few volumes of a process stay decoded."""
        try:
            with _decoding:  # threads that want the same volume must not each decode it
                key = (str(self.file), self.version)
                if key not in _decoded:
                    while len(_decoded) >= _KEPT:
                        _decoded.popitem(last=False)
                    _decoded[key] = self.load()
                _decoded.move_to_end(key)
                return _decoded[key]
        except (OSError, EOFError, ValueError, zlib.error, MemoryError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
            raise UserError(f"{self.file}: cannot be read ({reason}); replace or remove it") from None

    def percentiles(self, shares: tuple[float, float]) -> tuple[float, float]:
        """Percentiles of the values, of evenly spread voxels where there are more than about 4 million."""
        values = self._sample()
        low, high = np.percentile(values, shares) if len(values) else (0.0, 0.0)
        if not low < high:
            raise UserError(
                f"{self.file}: its values from the {_ordinal(shares[0])} to the {_ordinal(shares[1])} percentile are all "
                f"{low:g}; widen data.dataset.percentiles or remove it"
            )
        return float(low), float(high)

    def lowest(self) -> float:
        """The lowest value, of evenly spread voxels as in `percentiles`; NaN where there is none."""
        values = self._sample()
        return float(values.min()) if len(values) else math.nan

    def _sample(self) -> npt.NDArray[np.float64]:
        stored = self.stored().ravel(order="K")
        values = stored[:: max(1, stored.size // _SAMPLED)].astype(np.float64) * self.slope + self.intercept
        finite: npt.NDArray[np.float64] = values[np.isfinite(values)]
        return finite

    def _disk_axis(self, canonical: int) -> int:
        return next(a for a, (axis, _) in enumerate(self._order) if axis == canonical)


def _ordinal(share: float) -> str:
    """1st, 2nd, 3rd, 4th, 11th, 21st, 2.5th."""
    ending = "th"
    if float(share).is_integer() and int(share) % 100 not in (11, 12, 13):
        ending = {1: "st", 2: "nd", 3: "rd"}.get(int(share) % 10, "th")
    return f"{share:g}{ending}"


def check_same_voxels(image: Volume, label: Volume) -> None:
    """Checks that two volumes, once in the same orientation, have the same voxels.

    Raises:
        UserError: their shapes differ, or their voxels lie elsewhere.
    """
    if image.canonical_shape != label.canonical_shape:
        ours, theirs = ("x".join(map(str, volume.canonical_shape)) for volume in (label, image))
        raise UserError(
            f"{label.file}: label has {ours} voxels (right, anterior, superior) but its image {image.file} has {theirs}; "
            f"resample it onto the image (nibabel.processing.resample_from_to with order=0)"
        )
    corners = np.stack([*np.meshgrid(*[(0, n - 1) for n in image.canonical_shape], [1])]).reshape(4, -1)
    apart = np.linalg.norm(((image.canonical_affine - label.canonical_affine) @ corners)[:3], axis=0).max()
    if apart > _TOLERANCE * np.linalg.norm(image.canonical_affine[:3, :3], axis=0).min():
        raise UserError(
            f"{label.file}: label lies up to {apart:.3g} mm from its image {image.file} (their affines differ); resample it "
            f"onto the image, or copy the image's affine if only the header is wrong"
        )
