"""Reads a CT or MRI series, a folder of DICOM files of a slice each, as a volume."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from src.data.readers.picture_limits import check_size
from src.data.readers.volume import Array, Volume
from src.errors import UserError
from src.files.untrusted import open_regular, shown
from src.optional_packages import needs

SUFFIXES = (".dcm", ".dicom", ".ima")  # of a slice; many have none
_UNEVEN = 0.1  # of the usual distance of slices; more is a missing slice
_TAGS = (
    "SeriesInstanceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns",
    "SamplesPerPixel", "NumberOfFrames", "RescaleSlope", "RescaleIntercept", "Modality", "BitsStored", "PixelRepresentation",
    "PhotometricInterpretation", "SliceThickness",
)  # fmt: skip
_NUMBERS = {
    "ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2, "Rows": 1, "Columns": 1, "RescaleSlope": 1,
    "RescaleIntercept": 1, "BitsStored": 1, "PixelRepresentation": 1,
}  # fmt: skip
_ONE_VALUE = {
    "SeriesInstanceUID": "another series",
    "Modality": "another modality",
    "Rows": "another height",
    "Columns": "another width",
    "ImageOrientationPatient": "another orientation",
    "PixelSpacing": "another pixel spacing",
}
# Modalities of objects that lie beside scans and are none, and what to do with them.
_NO_SCANS = {
    "SEG": "a segmentation; as labels write it as NIfTI (dcmqi: segimage2itkimage)",
    "RTSTRUCT": "contours; as labels write them as NIfTI (plastimatch convert, or dcmrtstruct2nii)",
    "RTDOSE": "a dose, no scan",
    "RTPLAN": "a treatment plan, no scan",
    "REG": "a registration, no scan",
    "SR": "a report, no scan",
    "PR": "a way to show a scan, no scan",
    "KO": "a selection of images, no scan",
}
_OF_UNITS = ("CT", "PT")  # modalities whose values are measures, however they are shown


def is_series(folder: Path) -> bool:
    """Whether a folder holds a series: files with a suffix of DICOM, or without one but with DICOM's mark.

    Raises:
        OSError: it is no folder, or may not be listed.
    """
    return any(file.suffix or _is_marked(file) for file in slice_files(folder))


def open_series(folder: Path) -> Volume:
    """A series as a volume of which only the headers are read; values are in the unit of its rescale slope and
    intercept (Hounsfield units of CT).

    Raises:
        UserError: a file is no DICOM slice or cannot be decoded, belongs to another series, or a slice is missing.
    """
    files = slice_files(folder)
    if not files:
        raise UserError(f"{folder}: no DICOM files ({', '.join(SUFFIXES)}) in it; give a folder a series")
    headers = {file: _header(file) for file in files}
    first = headers[files[0]]
    for file, header in headers.items():
        for tag, other in _ONE_VALUE.items():
            mine, its = first.get(tag), header.get(tag)
            words = tag in ("SeriesInstanceUID", "Modality")
            if (mine != its) if words else not np.allclose(np.float64(mine), np.float64(its), atol=1e-3):
                raise UserError(
                    f"{file}: belongs to {other} ({tag}) than {files[0].name}; keep one series a folder and move it out"
                )
    rows, columns = np.array(first.ImageOrientationPatient, np.float64).reshape(2, 3)
    normal = np.cross(rows, columns)
    positions = {file: np.array(header.ImagePositionPatient, np.float64) for file, header in headers.items()}
    along = {file: float(position @ normal) for file, position in positions.items()}
    ordered = sorted(files, key=lambda file: along[file])
    _check_even(ordered, [along[file] for file in ordered], folder)
    doubts = _doubts(list(headers.values()))
    step = normal * (_number(first.get("SliceThickness"), 0.0) or 1.0)
    if len(ordered) > 1:
        step = (positions[ordered[-1]] - positions[ordered[0]]) / (len(ordered) - 1)
    height, width = (float(s) for s in first.PixelSpacing)
    affine = np.eye(4)
    # DICOM's axes are left, posterior, superior: the first two are turned round for RAS.
    affine[:3] = np.diag([-1, -1, 1]) @ np.stack([rows * width, columns * height, step, positions[ordered[0]]], axis=1)
    rescale = [
        (_number(headers[file].get("RescaleSlope"), 1.0), _number(headers[file].get("RescaleIntercept"), 0.0))
        for file in ordered
    ]
    modality = str(first.get("Modality") or "") or None
    inverted = [_is_inverted(headers[file]) for file in ordered]
    bits, signed = int(first.BitsStored), bool(first.PixelRepresentation)
    ends = [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1]
    limits = [end * slope + intercept for slope, intercept in set(rescale) for end in ends]
    whole = all(s.is_integer() and i.is_integer() for s, i in rescale) and -32768 <= min(limits) <= max(limits) <= 32767
    return Volume(
        folder, (int(first.Columns), int(first.Rows), len(ordered)), affine,
        functools.partial(_load_series, ordered, rescale, inverted, sum(ends), whole), newest(ordered), whole=whole,
        modality=modality, doubts=doubts, slices=tuple(ordered),
    )  # fmt: skip


def patient_of(folder: Path) -> str | None:
    """Whom a series' first header says that it is of; None where it says nothing, or is damaged (opening it says how)."""
    pydicom = needs("pydicom", "medical")
    try:
        with open_regular(slice_files(folder)[0], links=True) as stream:
            tags = ["PatientID", "IssuerOfPatientID"]
            header = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=tags)
        named = [str(header.get(tag) or "").strip() for tag in tags]
    except Exception:
        return None
    return " of ".join(filter(None, named)) if named[0] else None


def _number(value: Any, default: float) -> float:
    return default if value in (None, "") else float(value)


def _is_inverted(header: Any) -> bool:
    """Whether a slice stores white as 0. A measure (Hounsfield units) is one however it is shown."""
    return header.get("PhotometricInterpretation") == "MONOCHROME1" and header.get("Modality") not in _OF_UNITS


def _doubts(headers: Sequence[Any]) -> tuple[str, ...]:
    """What a series' headers leave open, each a kind."""
    first, doubts = headers[0], []
    unscaled = [h for h in headers if None in (h.get("RescaleSlope"), h.get("RescaleIntercept"))]
    if first.get("Modality") == "CT" and unscaled:
        doubts.append(
            "a CT without RescaleSlope and RescaleIntercept; values are taken as they are stored, which may not be Hounsfield "
            "units"
        )
    if first.get("Modality") in _OF_UNITS and first.get("PhotometricInterpretation") == "MONOCHROME1":
        doubts.append(
            f"a {first.Modality} in MONOCHROME1 (shown with white as low); its values are taken as the measure that they are"
        )
    if len(headers) == 1 and not first.get("SliceThickness"):
        doubts.append("a single slice without SliceThickness; it is taken to be 1 mm thick")
    return tuple(doubts)


def _header(file: Path) -> Any:
    """A slice's header, checked.

    Raises:
        UserError: it is no DICOM file, not one slice of one channel, has no position, or is compressed in a way that
            nothing installed decodes.
    """
    pydicom = needs("pydicom", "medical")
    try:
        with open_regular(file, links=True) as stream:
            if (
                pydicom.filereader.read_file_meta_info(file).TransferSyntaxUID
                == pydicom.uid.DeflatedExplicitVRLittleEndian
            ):
                raise UserError(
                    f"{file}: is deflated as a whole, which may unpack to any size; write it anew (dcmconv +te)"
                )
            header = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=list(_TAGS))
        syntax = header.file_meta.TransferSyntaxUID
        compressed = bool(syntax.is_compressed)
        # all are parsed here, where what is damaged is caught
        modality = str({tag: header.get(tag) for tag in _TAGS}["Modality"] or "")
        frames, samples = int(header.get("NumberOfFrames") or 1), int(header.get("SamplesPerPixel", 1))
    except UserError:
        raise
    except Exception as error:  # damaged values raise whatever their parser does
        raise UserError(f"{file}: cannot be read as DICOM ({_first_line(error)}); replace or remove it") from None
    if modality in _NO_SCANS:
        raise UserError(
            f"{file}: is no image but {_NO_SCANS[modality]} ({modality}); move it out of the series' folder"
        )
    if frames != 1 or samples != 1:
        what = f"{frames} frames" if frames != 1 else f"{samples} channels"
        raise UserError(f"{file}: has {what}; a series is files of one gray slice each: convert it to NIfTI (dcm2niix)")
    for tag in (
        "SeriesInstanceUID",
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "Rows",
        "Columns",
    ):
        if header.get(tag) in (None, ""):
            raise UserError(f"{file}: has no {tag}, so its place in the series is unknown; remove it (a scout image?)")
    _check_values(header, file, compressed)
    if compressed:
        try:
            decodable = pydicom.pixels.get_decoder(syntax).is_available
        except NotImplementedError:
            decodable = False
        if not decodable:
            raise UserError(
                f"{file}: is compressed ({syntax.name}) and nothing installed decodes that; pip install pylibjpeg "
                f"pylibjpeg-libjpeg pylibjpeg-openjpeg, or decompress it (gdcmconv --raw)"
            )
    return header


def _check_values(header: Any, file: Path, compressed: bool) -> None:
    """Checks that what is calculated with are finite numbers, and that the pixels fit in the file and in memory.

    Raises:
        UserError: they are not, or do not.
    """
    for tag, count in _NUMBERS.items():
        try:
            default = 0.0 if tag.startswith("Rescale") else None
            values = np.array(header.get(tag, default), np.float64).reshape(-1)
        except (TypeError, ValueError):
            values = np.array([np.nan])
        if len(values) != count or not np.isfinite(values).all():
            raise UserError(
                f"{file}: its {tag} should be {count} finite number{'s' * (count > 1)}; replace or remove it"
            )
    rows, columns, bits = int(header.Rows), int(header.Columns), int(header.BitsStored)
    if not 1 <= bits <= 32 or min(map(float, header.PixelSpacing)) <= 0:
        raise UserError(
            f"{file}: has pixels of {bits} bits, {list(header.PixelSpacing)} mm apart; replace or remove it"
        )
    check_size(columns, rows, file)
    size = file.stat().st_size
    if not compressed and rows * columns * bits // 8 > size:
        raise UserError(f"{file}: claims {columns}x{rows} pixels and has {size:,} bytes; replace or remove it")


def _check_even(files: Sequence[Path], along: Sequence[float], folder: Path) -> None:
    """Checks that slices at `along` mm, sorted, are evenly spaced."""
    steps = np.diff(along)
    if not len(steps):
        return
    usual = float(np.median(steps))
    for i, step in enumerate(steps.tolist()):
        before, after = files[i].name, files[i + 1].name
        if step < 1e-3:
            raise UserError(f"{folder / after}: lies where {before} lies; keep one of them (two series in one folder?)")
        if abs(step - usual) > _UNEVEN * usual:
            raise UserError(
                f"{folder}: {step:.4g} mm between {before} and {after} but {usual:.4g} mm between others, so a slice is "
                f"missing or too many; add it, or resample the series to even slices"
            )


def _load_series(
    files: Sequence[Path], rescale: Sequence[tuple[float, float]], inverted: Sequence[bool], ends: int, whole: bool
) -> Array:
    """Values [columns, rows, slices], int16 or float32.

    Args:
        inverted: of each slice, whether it stores white as 0.
        ends: the sum of the lowest and highest value that can be stored, so that `ends - x` inverts x.
    """
    pydicom = needs("pydicom", "medical")
    planes: list[npt.NDArray[np.generic]] = []
    for file, (slope, intercept), turned in zip(files, rescale, inverted, strict=True):
        try:
            with open_regular(file, links=True) as stream:
                stored = pydicom.dcmread(stream).pixel_array
        except UserError:
            raise
        except Exception as error:  # each decoder raises its own
            raise UserError(f"{file}: its pixels cannot be decoded ({_first_line(error)}); replace it") from None
        stored = ends - stored.astype(np.int64) if turned else stored
        planes.append((stored * np.float32(slope) + np.float32(intercept)).astype(np.int16 if whole else np.float32).T)
    return np.stack(planes, axis=-1)


def slice_files(folder: Path) -> list[Path]:
    """The files of a folder that may be slices, by name."""
    files = (p for p in folder.iterdir() if p.suffix.lower() in ("", *SUFFIXES) and p.is_file())
    return sorted(p for p in files if not p.name.startswith(".") and p.name.upper() != "DICOMDIR")


def _is_marked(file: Path) -> bool:
    """Whether a file has DICOM's mark behind its preamble."""
    with open_regular(file, links=True) as stream:
        return stream.read(132)[128:] == b"DICM"


def newest(files: Sequence[Path]) -> int:
    """When the last of them was written, in ns."""
    return max(file.stat().st_mtime_ns for file in files)


def _first_line(error: Exception) -> str:
    return (shown(str(error)).strip().splitlines() or [type(error).__name__])[0][:120]
