"""`Dicom` reads slices of CT and MRI series in DICOM files, one folder a series, with index PNGs or NIfTI label volumes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from src.data.formats import nifti
from src.data.formats.nifti import is_nifti, open_nifti
from src.data.formats.volume_slices import VolumeSlices
from src.data.layout.patterns import Items
from src.data.readers.dicom_series import newest, open_series, patient_of, slice_files
from src.data.readers.images import INDEX_MODES, open_picture
from src.data.readers.volume import Array, Volume
from src.errors import UserError
from src.optional_packages import needs


def _has_slices(path: Path) -> bool:
    return path.is_dir() and bool(slice_files(path))


def _is_mask(path: Path) -> bool:
    return is_nifti(path) or (path.is_dir() and any(p.suffix.lower() == ".png" for p in path.iterdir()))


class Dicom(VolumeSlices):
    """Slices of DICOM series; keys as in `VolumeSlices`.

    `images` names folders of one series each, `masks` for each a NIfTI label volume or a folder of index PNGs, one for
    each slice: of the same names as the slices' files, or else in the slices' order, which is that of their positions
    along the normal of the slices (for axial slices with rows to the patient's left: from the feet to the head).
    """

    image_items = Items(nifti.SUFFIXES, _has_slices, flat=True, what="folders of a DICOM series")
    mask_items = Items(nifti.SUFFIXES, _is_mask, flat=True, what="label volumes (NIfTI, or folders of PNGs)")

    def prepare(self) -> None:
        needs("pydicom", "medical")
        needs("nibabel", "medical")

    def patient(self, image: Path) -> str | None:
        return patient_of(image)

    def open_image(self, path: Path) -> Volume:
        return open_series(path)

    def open_mask(self, path: Path, image: Volume) -> Volume:
        return open_nifti(path) if path.is_file() else _open_pngs(path, image)


def _open_pngs(folder: Path, image: Volume) -> Volume:
    """Index PNGs of a series' slices as a label volume on the series' grid."""
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() == ".png" and not p.name.startswith("."))
    if len(files) != len(image.slices):
        raise UserError(
            f"{folder}: {len(files)} PNGs but {len(image.slices)} slices in {image.file}; give one mask for each slice"
        )
    by_stem = {file.stem: file for file in files}
    if by_stem.keys() == {file.stem for file in image.slices}:
        files = [by_stem[file.stem] for file in image.slices]
    return Volume(
        folder, image.shape, image.affine, functools.partial(_load_pngs, files, image.shape), newest(files), whole=True
    )


def _load_pngs(files: Sequence[Path], shape: tuple[int, int, int]) -> Array:
    """Label values [columns, rows, slices]."""
    planes: list[npt.NDArray[np.generic]] = []
    for file in files:
        with open_picture(file, "a mask") as image:
            mode, values = image.mode, np.asarray(image)
        if mode not in INDEX_MODES:
            raise UserError(f"{file}: mask is {mode}, not an index image (one value a pixel); convert it")
        if values.T.shape != shape[:2]:
            raise UserError(
                f"{file}: mask is {values.shape[1]}x{values.shape[0]} but its slice is {shape[0]}x{shape[1]}; width and "
                f"height must be equal"
            )
        planes.append(values.T)
    return np.stack(planes, axis=-1)
