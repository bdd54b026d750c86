"""Explains what a file is that nothing here reads, and what to make of it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

_VOLUME = "convert it to NIfTI (.nii.gz), e.g. with SimpleITK: WriteImage(ReadImage(FILE), 'OUT.nii.gz')"
_VECTOR = "burn it into a raster on its image's grid (rio rasterize OUT.tif --like IMAGE.tif, or gdal_rasterize)"
_ARRAY = "write each image as TIFF or PNG, each volume as NIfTI"
_RASTER = "convert it to GeoTIFF (gdal_translate FILE OUT.tif)"
_SLIDE = "write regions of it as TIFF (vips, or OpenSlide)"
_FORMATS = {
    **dict.fromkeys((".mha", ".mhd"), ("volumes in MetaImage", _VOLUME)),
    **dict.fromkeys((".nrrd", ".nhdr", ".seg.nrrd"), ("volumes in NRRD", _VOLUME)),
    **dict.fromkeys((".mgz", ".mgh"), ("FreeSurfer's volumes", _VOLUME)),
    **dict.fromkeys((".dcm", ".dicom", ".ima"), (
        "single DICOM files",
        "give a folder for each series (data=dicom), and labels, also those of DICOM-SEG and RTSTRUCT, as NIfTI or index PNGs",
    )),
    **dict.fromkeys((".shp", ".geojson", ".gpkg", ".kml", ".gml", ".fgb"), ("vector data", _VECTOR)),
    ".vrt": ("virtual rasters, which name other files,", _RASTER),
    **dict.fromkeys((".ecw", ".sid", ".nc", ".grib", ".hgt"), ("rasters of this format", _RASTER)),
    **dict.fromkeys((".svs", ".ndpi", ".mrxs", ".czi"), ("whole slides", _SLIDE)),
    ".zarr": ("Zarr arrays", _ARRAY),
    **dict.fromkeys((".h5", ".hdf5", ".hdf"), ("HDF5 files", _ARRAY)),
    **dict.fromkeys((".npy", ".npz"), ("NumPy arrays", _ARRAY)),
    ".mat": ("MATLAB files", _ARRAY),
}  # fmt: skip


def explain(path: Path) -> str | None:
    """Why a file (or a folder such as `x.zarr`) is not read and what is, in words; None of a format that may be."""
    suffix = _suffix(path)
    if suffix is None:
        return None
    what, mend = _FORMATS[suffix]
    return f"{what} ({suffix}) are not read; {mend}"


def found_instead(paths: Iterable[Path]) -> str:
    """What lies where nothing was found that is read, as the end of a message; "" where nothing of a known format does."""
    for path in sorted(paths):
        if (reason := explain(path)) is not None:
            return f"; there is {path.name}, and {reason}"
    return ""


def _suffix(path: Path) -> str | None:
    name = path.name.lower()
    return next((suffix for suffix in sorted(_FORMATS, key=len, reverse=True) if name.endswith(suffix)), None)
