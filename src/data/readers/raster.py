"""Reads georeferenced rasters (and plain images) by windows through rasterio."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from src.data.windows import Window
from src.errors import UserError
from src.files.untrusted import open_regular, shown
from src.optional_packages import needs

_TOLERANCE = 0.01  # pixels that two grids may be apart and still be one
_TOLERANCE_OF_POINTS = 0.5  # … where ground control points say where, of which a grid is fitted
_PREVIEW = 1024  # pixels of the longer side of what is read to look at a whole scene
_DRIVERS = {  # by what a file begins with: GDAL would go by content too, to formats that name other files and URLs
    b"II*\0": "GTiff", b"MM\0*": "GTiff", b"II+\0": "GTiff", b"MM\0+": "GTiff", b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG", b"\0\0\0\x0cjP  \r\n\x87\n": "JP2OpenJPEG", b"\xff\x4f\xff\x51": "JP2OpenJPEG",
    b"RIFF": "WEBP", b"BM": "BMP",
}  # fmt: skip
# An overview or a mask in a file of its own, which GDAL opens in whatever format it has.
_BESIDE = (".ovr", ".OVR", ".msk", ".MSK", ".msk.ovr", ".ovr.ovr", ".ovr.msk")
# No request leaves the process: of all addresses only this one, which is none, may be asked for.
_OFFLINE = {"CPL_VSIL_CURL_ALLOWED_FILENAME": "none", "GDAL_VRT_ENABLE_PYTHON": "NO"}
_PIXELS = 10**9  # from which on a file must have a byte for every `_SHARED` pixels
_SHARED = 100_000
_BLOCK = 2**30  # bytes of a block, the least that can be decoded


@contextlib.contextmanager
def open_raster(file: Path) -> Iterator[Any]:
    """The file as a rasterio dataset; handles are not shared between threads, so each reader opens its own.

    Raises:
        UserError: rasterio is missing, or cannot open or read the file, it is of another format than TIFF, PNG, JPEG, JPEG
            2000, WebP and BMP, or it names another file.
    """
    rasterio = needs("rasterio", "geo")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)  # a plain image is welcome
            with rasterio.Env(**_OFFLINE):
                for suffix in _BESIDE:
                    beside = file.with_name(file.name + suffix)
                    if beside.exists():
                        with rasterio.open(beside, driver=_driver(beside)) as dataset:
                            _check_alone(dataset, beside)
                with rasterio.open(file, driver=_driver(file)) as dataset:
                    _check_alone(dataset, file)
                    yield dataset
    except (rasterio.errors.RasterioError, rasterio.errors.CRSError, MemoryError, OverflowError, UnicodeError) as error:
        reason = (shown(str(error.__cause__ or error)).strip().splitlines() or [type(error).__name__])[0][:120]
        raise UserError(f"{file}: cannot be read as a raster ({reason}); replace or remove it") from None


def _driver(file: Path) -> str:
    """GDAL's name of a regular file's format.

    Raises:
        UserError: there is none, or it is of no format that is read.
    """
    try:
        with open_regular(file, links=True) as stream:
            start = stream.read(16)
    except FileNotFoundError:
        raise UserError(f"{file}: cannot be read as a raster (there is no such file); check the path") from None
    for magic, driver in _DRIVERS.items():
        if start.startswith(magic):
            return driver
    reason = "no TIFF, PNG, JPEG, JPEG 2000, WebP or BMP file" if start else "empty"
    raise UserError(
        f"{file}: cannot be read as a raster (it is {reason}); replace it, or convert it with gdal_translate -of GTiff"
    )


def _check_alone(dataset: Any, file: Path) -> None:
    """Checks that an open file names no other one, and that what its header promises can be true.

    Raises:
        UserError: it does, or it cannot.
    """
    if "OVERVIEW_FILE" in dataset.tags(ns="OVERVIEWS"):
        raise UserError(f"{file}: takes its overviews from another file, which its metadata name; refused")
    pixels, size = dataset.width * dataset.height, file.stat().st_size
    if pixels > _PIXELS and pixels > size * _SHARED:
        raise UserError(
            f"{file}: claims {dataset.width}x{dataset.height} pixels in {size:,} bytes; replace or remove it"
        )
    for (height, width), kind in zip(dataset.block_shapes, dataset.dtypes, strict=True):
        needed = height * width * (np.dtype(kind).itemsize if kind in np.sctypeDict else 16)
        if needed > _BLOCK:
            raise UserError(
                f"{file}: is stored in blocks of {width}x{height} pixels, each of which fills {needed / 2**30:.1f} GiB; tile "
                f"it: gdal_translate -co TILED=YES {file} OUT.tif"
            )


def read_window(
    dataset: Any, bands: Sequence[int], window: Window, intensity: tuple[float, float]
) -> tuple[Tensor, npt.NDArray[np.bool_]]:
    """Bands [C, h, w] in the raster's own dtype (what torch has no use for as float32), and where there is no data, bool
    [h, w].

    That is where GDAL's data-set mask says so: an alpha or mask band, or the nodata value in all bands, since 0, say, in one
    band alone is a dark pixel. A value that cannot be one (NaN, infinity, a nodata value that `intensity` does not reach)
    tells it in any of the wanted bands.

    Args:
        bands: numbers from 1.
        intensity: the lowest and highest value that are told apart. NaN becomes the lowest.
    """
    area = needs("rasterio.windows", "geo").Window(window.left, window.top, window.width, window.height)
    values: npt.NDArray[Any] = dataset.read(list(bands), window=area)
    masks: npt.NDArray[np.uint8] = dataset.read_masks(list(bands), window=area)
    without = masks == 0
    empty: npt.NDArray[np.bool_] = np.all(without, axis=0)
    if empty.any() and len(set(bands)) < dataset.count:
        empty &= dataset.dataset_mask(window=area) == 0
    for band, lacks in zip(bands, without, strict=True):
        nodata = dataset.nodatavals[band - 1]
        if nodata is not None and not intensity[0] <= nodata <= intensity[1]:
            empty |= lacks
    if values.dtype.kind == "f" or values.dtype.itemsize == 8 or values.dtype == np.uint32:
        values = values.astype(np.float32)
        wrong = ~np.isfinite(values)
        empty |= wrong.any(axis=0)
        values[wrong] = intensity[0]
    return torch.from_numpy(values), empty


def preview(dataset: Any, bands: Sequence[int], side: int = _PREVIEW) -> npt.NDArray[Any]:
    """The whole scene, thinned so that its longer side has at most `side` pixels: [C, h, w], memory bounded."""
    height, width = preview_size(dataset.height, dataset.width, side)
    values: npt.NDArray[Any] = dataset.read(list(bands), out_shape=(len(bands), height, width))
    return values


def usual_range(dataset: Any, bands: Sequence[int]) -> tuple[float, float]:
    """The values between which 98 % of a thinned scene's lie, without those that are no data.

    Raises:
        UserError: it has no data at all.
    """
    values = preview(dataset, bands).astype(np.float64)
    there = dataset.read_masks(list(bands), out_shape=values.shape) > 0
    seen = values[there & np.isfinite(values)]
    if not len(seen):
        raise UserError(f"{dataset.name}: has no pixel with data; remove it")
    low, high = np.percentile(seen, (1, 99))
    return float(low), float(high)


def preview_size(height: int, width: int, side: int) -> tuple[int, int]:
    shrink = max(1.0, max(height, width) / side)
    return max(1, round(height / shrink)), max(1, round(width / shrink))


def check_bands(dataset: Any, bands: Sequence[int], file: Path, key: str) -> None:
    """Checks that a raster has the wanted bands, of one dtype.

    Raises:
        UserError: it has not; names `key`, the bands' key.
    """
    if max(bands) > dataset.count:
        raise UserError(
            f"{file}: has {dataset.count} bands, and {key} asks for {max(bands)}; choose among 1 to {dataset.count}"
        )
    kinds = {dataset.dtypes[band - 1] for band in bands}
    if any(kind.startswith("complex") for kind in kinds):
        raise UserError(f"{file}: its bands are complex numbers; write magnitudes as float32")


def check_same_pixels(image: Any, label: Any) -> None:
    """Checks that two open rasters have the same pixels. Where either says nothing of where it lies (a plain image), sizes
    alone tell; a transform or ground control points tell also without a CRS.

    Raises:
        UserError: size, CRS, transform or ground control points differ.
    """
    file, other = label.name, image.name
    mend = f"bring it onto the image's grid: rio warp {file} OUT.tif --like {other} --resampling nearest"
    if (label.width, label.height) != (image.width, image.height):
        raise UserError(
            f"{file}: label raster is {label.width}x{label.height} but its image {other} is "
            f"{image.width}x{image.height}; {mend}"
        )
    (ours, our_crs, by_points), (theirs, their_crs, with_points) = _placed(label), _placed(image)
    if our_crs is not None and their_crs is not None and our_crs != their_crs:
        raise UserError(f"{file}: label raster is in {our_crs} but its image {other} is in {their_crs}; {mend}")
    if ours is None or theirs is None:
        return
    width, height = image.width, image.height
    corners = np.array([(0, 0, 1), (width, 0, 1), (0, height, 1), (width, height, 1)], np.float64).T
    seen = np.linalg.lstsq(theirs, ours @ corners, rcond=None)[0]
    apart = float(np.linalg.norm(seen - corners, axis=0).max())
    points = by_points or with_points
    if apart > (_TOLERANCE_OF_POINTS if points else _TOLERANCE):
        what = "ground control points" if points else "transforms"
        if points:
            mend = "give the label the image's points, or warp both onto one grid (rio warp)"
        raise UserError(
            f"{file}: label raster lies up to {apart:.3g} pixels from its image {other} (their {what} differ); {mend}"
        )


def _placed(dataset: Any) -> tuple[npt.NDArray[np.float64] | None, Any, bool]:
    """Where a raster lies: from columns and rows of pixels to coordinates [3, 3] (None where it does not say), the CRS, and
    whether that is the best fit of ground control points."""
    t, crs = dataset.transform, dataset.crs
    points, crs_of_points = dataset.gcps
    fitted = t.is_identity and len(points) >= 3
    if fitted:
        t, crs = needs("rasterio.transform", "geo").from_gcps(points), crs_of_points
    elif t.is_identity:
        return None, crs, False
    return np.array([(t.a, t.b, t.c), (t.d, t.e, t.f), (0, 0, 1)], np.float64), crs, fitted


def georeference(dataset: Any) -> dict[str, Any]:
    """What says where a raster lies, for a file on the same grid: transform and CRS, or ground control points and theirs; and
    rational polynomials."""
    points, crs = dataset.gcps
    placed = {"crs": crs, "gcps": points} if points else {"crs": dataset.crs, "transform": dataset.transform}
    return placed | ({"rpcs": dataset.rpcs} if dataset.rpcs is not None else {})
