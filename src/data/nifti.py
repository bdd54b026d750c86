"""CT and MRI volumes in NIfTI files (.nii, .nii.gz) with label volumes."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from src.data.volume import Array, Volume
from src.data.volume_slices import VolumeSlices
from src.errors import UserError
from src.extras import needs

SUFFIXES = (".nii", ".nii.gz")


class Nifti(VolumeSlices):
    """Slices of NIfTI volumes; keys as in `VolumeSlices`."""

    suffixes = SUFFIXES

    def prepare(self) -> None:
        needs("nibabel", "medical")

    def files(self, index: int) -> tuple[Path, ...]:
        volume = int(self._volume_of[index])
        return self._images[volume].file, self._masks[volume].file

    def is_image(self, path: Path) -> bool:
        return is_nifti(path)

    def is_mask(self, path: Path) -> bool:
        return is_nifti(path)

    def open_image(self, path: Path) -> Volume:
        return open_nifti(path)

    def open_mask(self, path: Path, image: Volume) -> Volume:
        return open_nifti(path)


def is_nifti(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES) and path.is_file()


def open_nifti(file: Path) -> Volume:
    """A volume of which only the header is read.

    Raises:
        UserError: the file is no NIfTI volume of three dimensions.
    """
    nib = needs("nibabel", "medical")
    try:
        image = nib.load(file)
        header, proxy = image.header, image.dataobj
    except (nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError, OSError, EOFError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        raise UserError(f"{file}: cannot be read as a NIfTI volume ({reason}); replace or remove it") from None
    if len(image.shape) < 3 or any(n != 1 for n in image.shape[3:]):
        shape = "x".join(map(str, image.shape))
        raise UserError(
            f"{file}: is {shape}, not a volume of three dimensions; write one file a volume (nibabel.four_to_three)"
        )
    kind = header.get_data_dtype()
    if kind.kind not in "iuf":
        raise UserError(f"{file}: its voxels are {kind}, not numbers; convert it to int16 or float32")
    slope, intercept = float(proxy.slope), float(proxy.inter)
    return Volume(
        file, tuple(image.shape[:3]), image.affine.astype(np.float64), functools.partial(_load, file),
        file.stat().st_mtime_ns, slope, intercept,
        whole=_is_whole(kind, slope, intercept),
    )  # fmt: skip


def _load(file: Path) -> Array:
    """Voxels as stored: a memory map of a .nii file, decoded from a .nii.gz."""
    image = needs("nibabel", "medical").load(file)
    stored: Array = image.dataobj.get_unscaled()
    return stored.reshape(stored.shape[:3])


def _is_whole(kind: np.dtype[Any], slope: float, intercept: float) -> bool:
    """Whether every value that can be stored is a whole number within int16."""
    if kind.kind not in "iu" or not slope.is_integer() or not intercept.is_integer():
        return False
    ends = [int(limit) * slope + intercept for limit in (np.iinfo(kind).min, np.iinfo(kind).max)]
    return min(ends) >= -32768 and max(ends) <= 32767
