"""`Nifti` reads slices of CT and MRI volumes in NIfTI files (.nii, .nii.gz) with label volumes."""

from __future__ import annotations

import functools
import gzip
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from src.data.formats.volume_slices import VolumeSlices
from src.data.layout.patterns import Items
from src.data.readers.volume import Array, Volume
from src.errors import UserError
from src.files.untrusted import open_regular, shown
from src.optional_packages import needs

SUFFIXES = (".nii", ".nii.gz")
_HEADER = 544  # bytes, of the longer of the two
_SECOND = (b"\x1c\x02\0\0", b"\0\0\x02\x1c")  # NIfTI-2's first number, 540
_DEFLATE = 1040  # bytes that one compressed byte can stand for
_UNPACKED = 16 << 30  # bytes of a .nii.gz's voxels
_OFFSET = 256 << 20  # bytes of the header's extensions


class Nifti(VolumeSlices):
    """Slices of NIfTI volumes; keys as in `VolumeSlices`."""

    image_items = mask_items = Items(SUFFIXES, flat=True)

    def prepare(self) -> None:
        needs("nibabel", "medical")

    def files(self, index: int) -> tuple[Path, ...]:
        volume = int(self._volume_of[index])
        return self._images[volume].file, self._masks[volume].file

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
    image = load_nifti(file)
    header, proxy = image.header, image.dataobj
    if len(image.shape) < 3 or any(n != 1 for n in image.shape[3:]):
        shape = "x".join(map(str, image.shape))
        raise UserError(
            f"{file}: is {shape}, not a volume of three dimensions; write one file a volume (nibabel.four_to_three)"
        )
    kind = header.get_data_dtype()
    if kind.kind not in "iuf":
        raise UserError(f"{file}: its voxels are {kind}, not numbers; convert it to int16 or float32")
    slope, intercept = float(proxy.slope), float(proxy.inter)
    if not (math.isfinite(slope) and math.isfinite(intercept) and np.isfinite(image.affine).all()):
        raise UserError(f"{file}: its affine, slope or intercept is not finite; write valid ones")
    return Volume(
        file, tuple(image.shape[:3]), image.affine.astype(np.float64), functools.partial(_load, file),
        file.stat().st_mtime_ns, slope, intercept,
        whole=_is_whole(kind, slope, intercept),
    )  # fmt: skip


def load_nifti(file: Path) -> Any:
    """nibabel's image of a NIfTI file, of which only the header is read: of no other format, whatever the content.

    Raises:
        UserError: it is no regular file or no NIfTI file, or its header promises more voxels than it can hold.
    """
    nib = needs("nibabel", "medical")
    packed = file.name.lower().endswith(".gz")
    try:
        with open_regular(file, links=True) as raw:
            size = os.fstat(raw.fileno()).st_size
            with gzip.GzipFile(fileobj=raw) if packed else raw as stream:
                start = stream.read(_HEADER)
        second = start[:4] in _SECOND
        if start[4:8] != b"n+2\0" if second else start[344:348] != b"n+1\0":
            raise ValueError("it is no NIfTI file of header and voxels in one")
        kind = nib.Nifti2Image if second else nib.Nifti1Image
        header = kind.header_class(start[: 540 if second else 348], check=False)
        shape, offset = header.get_data_shape(), float(header["vox_offset"])
        voxels = math.prod(map(int, shape)) if shape and min(shape) > 0 else 0
        needed = voxels * int(header.get_data_dtype().itemsize)
        can_hold = min(size * _DEFLATE, _UNPACKED) if packed else size
        if not voxels:
            raise ValueError(f"it has {'x'.join(map(str, shape)) or 'no'} voxels")
        if not 0 <= offset <= _OFFSET or needed + offset > can_hold:
            promised = f"{'x'.join(map(str, shape))} voxels, {needed:,} bytes from byte {offset:.0f} on"
            limit = f" (a .nii.gz may hold {_UNPACKED >> 30} GiB)" if packed and needed > _UNPACKED else ""
            raise ValueError(f"its header promises {promised}, and the file has {size:,}{limit}")
        image = kind.from_filename(file)
        if image.shape != shape:
            raise ValueError("it changes while it is read")
        image.affine.astype(np.float64)
    except UserError:
        raise
    except Exception as error:  # nibabel, zlib and struct raise their own
        reason = (shown(str(error)).strip().splitlines() or [type(error).__name__])[0][:160]
        raise UserError(f"{file}: cannot be read as a NIfTI volume ({reason}); replace or remove it") from None
    return image


def _load(file: Path) -> Array:
    """Voxels as stored: a memory map of a .nii file, decoded from a .nii.gz."""
    image = load_nifti(file)
    stored: Array = image.dataobj.get_unscaled()
    return stored.reshape(stored.shape[:3])


def _is_whole(kind: np.dtype[Any], slope: float, intercept: float) -> bool:
    """Whether every value that can be stored is a whole number within int16."""
    if kind.kind not in "iu" or not slope.is_integer() or not intercept.is_integer():
        return False
    ends = [int(limit) * slope + intercept for limit in (np.iinfo(kind).min, np.iinfo(kind).max)]
    return min(ends) >= -32768 and max(ends) <= 32767
