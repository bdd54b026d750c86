"""Tiny volumes on disk for tests, in any orientation and format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from src.optional_packages import needs

Array = npt.NDArray[Any]
SHAPE = (20, 24, 16)


def phantom(shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> tuple[Array, Array]:
    """A RAS image int16 (air at -1000, two bright blocks) and its label 0, 1, 2; nothing in it is symmetric."""
    label = np.zeros(shape, np.uint8)
    x, y, z = shape
    label[2 : x // 2, 3 : y // 2, 1 : z - 3] = 1
    label[x // 2 + 2 : x - 1, y // 2 : y - 2, 3 : z - 1] = 2
    noise = np.random.default_rng(seed).integers(-20, 20, shape)
    return (np.array([-1000, 60, 200])[label] + noise).astype(np.int16), label


def affine(spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> npt.NDArray[np.float64]:
    made = np.diag([*spacing, 1.0])
    made[:3, 3] = (-10, -12, 30)
    return made


def write_nifti(
    file: Path, array: Array, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0), codes: str = "RAS",
    slope: float | None = None, intercept: float = 0.0,
) -> Path:  # fmt: skip
    """Writes a RAS array with its axes permuted and flipped on disk to `codes`."""
    orientations = needs("nibabel.orientations", "medical")
    image: Any = nib.Nifti1Image(array, affine(spacing))
    turn = orientations.ornt_transform(
        orientations.axcodes2ornt(("R", "A", "S")), orientations.axcodes2ornt(tuple(codes))
    )
    image = image.as_reoriented(turn)
    if slope is not None:
        image.header.set_slope_inter(slope, intercept)
    file.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, file)
    return file


def write_dicom(
    folder: Path, array: Array, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0), intercept: int = -1024
) -> list[Path]:
    """Writes a RAS array as an axial CT series, one file a slice from the feet to the head, under names in another order."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    folder.mkdir(parents=True, exist_ok=True)
    series = generate_uid()
    files: list[Path] = []
    dx, dy, dz = spacing
    corner = affine(spacing) @ np.array(
        [array.shape[0] - 1, array.shape[1] - 1, 0, 1]
    )  # right front: DICOM's first pixel
    for k in range(array.shape[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        file = folder / f"im{(k * 7) % 100:03}.dcm"
        data = FileDataset(str(file), {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        data.SeriesInstanceUID, data.Modality = series, "CT"
        data.Rows, data.Columns = array.shape[1], array.shape[0]
        data.PixelSpacing = [dy, dx]
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]  # columns to the left, rows to the back
        data.ImagePositionPatient = [-corner[0], -corner[1], corner[2] + k * dz]
        data.RescaleSlope, data.RescaleIntercept = 1, intercept
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
        data.PixelData = (array[::-1, ::-1, k].T - intercept).astype("<u2").tobytes()
        data.save_as(file, enforce_file_format=True)
        files.append(file)
    return files
