"""Segments rasters window by window, so that a scene of any size fits in memory, and keeps where they lie."""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from src.config.check import check_node
from src.config.parts import Dataset
from src.data.readers.images import IMAGE_SUFFIXES
from src.data.readers.raster import check_bands, georeference, open_raster, preview, read_window
from src.data.windows import Part, parts
from src.errors import UserError
from src.files.atomic import replacing
from src.files.pictures import save_picture
from src.files.untrusted import open_regular
from src.inference.drawing import as_picture, overlay
from src.inference.predictor import Predictor
from src.optional_packages import needs

_log = logging.getLogger(__name__)
TRAINED_ON = "src.data.formats.geotiff.GeoTiff"
# TIFF tags of a georeference: pixel scale, tie points (or ground control points), transform, CRS, rational polynomials
_GEO_TAGS = (33550, 33922, 34264, 34735, 50844)
_NO_DATA = 255
_NARROW = 0.02  # of the model's range; less looks all alike to it
_OVERVIEW = 2048  # pixels of the longer side of an overlay


def is_georeferenced(file: Path) -> bool:
    """Whether a file is a GeoTIFF, told by its tags, without rasterio; or of a format that photos do not have."""
    if file.suffix.lower() not in (".tif", ".tiff"):
        return file.suffix.lower() not in IMAGE_SUFFIXES
    try:
        with open_regular(file, links=True) as stream, Image.open(stream, formats=["TIFF"]) as image:
            return any(tag in image.tag_v2 for tag in _GEO_TAGS)  # type: ignore[attr-defined]
    except Exception:  # many bands, floats or damaged: no photo, so rasterio's to judge
        return True


def bands_of(dataset: Dataset, channels: int, count: int, file: Path) -> list[int]:
    """The bands of a file with `count` bands that a model takes; `dataset` is what it was trained on.

    Raises:
        UserError: it cannot be told which.
    """
    if dataset.target == TRAINED_ON:
        check_node("data.dataset", dataset.node)  # a stranger's checkpoint
        return dataset.bands or [1, 2, 3]
    if count == channels or (channels == 3 and count > 3):
        if count > channels:
            _log.warning("%s: has %d bands, and the model takes the first %d of them", file, count, channels)
        return list(range(1, channels + 1))
    raise UserError(f"{file}: has {count} bands and the model takes {channels}; give a file with these bands only")


def segment_raster(
    model: Predictor, device: torch.device, file: Path, output: Path, name: str, dataset: Dataset, *,
    side: int, overlap: int, opacity: float, uncertainty: bool,
) -> None:  # fmt: skip
    """Writes masks/NAME.tif (uint8, the classes' colours, 255 without data), uncertainty/NAME_….tif, all with the CRS and
    transform of `file`, and a thinned overlays/NAME.png.

    Raises:
        UserError: the file cannot be read or does not fit the model.
    """
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(open_raster(file))
        bands = bands_of(dataset, model.channels, source.count, file)
        check_bands(source, bands, file, "the model")
        given = replace(model.images, dtype=str(np.result_type(*(source.dtypes[band - 1] for band in bands))))
        if depth := model.images.other_depth(given.dtype):
            raise UserError(f"{file}: is {depth}; give it with the values that the model learnt from")
        if doubt := model.images.doubt(given):
            _log.warning("%s: has %s", file, doubt)
        sinks: dict[str, Any] = {}
        seen = _Seen(model.intensity)
        for part in parts(source.height, source.width, side, overlap):
            raw, empty = read_window(source, bands, part.read, model.intensity)
            seen.add(raw.numpy()[:, ~empty])
            maps = segment(model, raw[None].to(device), uncertainty)
            maps["mask"][empty] = _NO_DATA
            for kind, values in maps.items():
                if kind not in sinks:
                    target = output / ("masks" if kind == "mask" else "uncertainty")
                    tail = "" if kind == "mask" else f"_{kind}"
                    sinks[kind] = stack.enter_context(_created(target / f"{name}{tail}.tif", source))
                    if kind == "mask":
                        colors = {k: (*map(int, rgb), 255) for k, rgb in enumerate(model.label_set.palette())}
                        sinks[kind].write_colormap(1, colors)
                        sinks[kind].nodata = _NO_DATA
                _write(sinks[kind], values, part)
        if doubt := seen.doubt():
            _log.warning("%s: %s", file, doubt)
        shown = as_picture(preview(source, bands, _OVERVIEW), model.intensity)
    with open_raster(output / "masks" / f"{name}.tif") as mask:
        blended = overlay(shown, preview(mask, [1], _OVERVIEW)[0], model.label_set, opacity)
    save_picture(Image.fromarray(blended), output / "overlays" / f"{name}.png")


class _Seen:
    """The values of a scene, to tell whether they are of the range that a model tells apart."""

    def __init__(self, intensity: tuple[float, float]) -> None:
        self.range, self.count, self.outside = intensity, 0, 0
        self.low, self.high = np.inf, -np.inf

    def add(self, values: npt.NDArray[np.number]) -> None:
        if values.size:
            self.count += values.size
            self.outside += int(((values < self.range[0]) | (values > self.range[1])).sum())
            self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))

    def doubt(self) -> str | None:
        """Why the scene may not be of the model's kind, in words; None where nothing speaks against it."""
        low, high = self.range
        narrow = self.high - self.low < _NARROW * (high - low)
        if not self.count or not (narrow or self.outside > self.count / 2):
            return None
        return (
            f"its values lie from {self.low:g} to {self.high:g}, and the model tells those from {low:g} to {high:g} apart; "
            "is it scaled otherwise than the data of its training?"
        )


def segment(model: Predictor, raw: torch.Tensor, uncertainty: bool) -> dict[str, npt.NDArray[np.uint8]]:
    """Of one raw image [1, C, H, W]: "mask", uint8 [H, W] of class numbers, and uncertainty maps in which 255 is 1."""
    with torch.inference_mode():
        result = {"mask": model.logits(raw).argmax(dim=1)[0].byte().cpu().numpy()}
        maps = model.uncertainty(raw) if uncertainty else {}
        return result | {kind: as_gray(values[0]) for kind, values in maps.items()}


def as_gray(values: torch.Tensor) -> npt.NDArray[np.uint8]:
    """A map in 0…1 as uint8 of the same shape."""
    gray: npt.NDArray[np.uint8] = (values.clamp(0, 1) * 255).round().byte().cpu().numpy()
    return gray


@contextlib.contextmanager
def _created(file: Path, source: Any) -> Iterator[object]:
    """A new GeoTIFF of one band on the source's grid; it gets its name only once it is whole.

    Raises:
        OSError: it cannot be written.
    """
    rasterio = needs("rasterio", "geo")
    with replacing(file) as partial:
        with _writing(partial):
            sink = rasterio.open(
                partial, "w", driver="GTiff", height=source.height, width=source.width, count=1, dtype="uint8",
                compress="deflate", tiled=True, bigtiff="if_safer", **georeference(source),
            )  # fmt: skip
        try:
            yield sink
        finally:
            with _writing(partial):
                sink.close()
        with _writing(partial), rasterio.open(partial, driver="GTiff") as written:  # closing hides what was not written
            for _, window in written.block_windows(1):
                written.read(1, window=window)


@contextlib.contextmanager
def _writing(file: Path) -> Iterator[None]:
    """Turns an error of GDAL's, which tells no cause, into that of writing to the file without it.

    Raises:
        OSError: the file cannot be written.
    """
    try:
        yield
    except needs("rasterio", "geo").errors.RasterioError as error:
        try:
            with file.open("ab") as stream:
                stream.write(bytes(1 << 20))
        except OSError as cause:
            cause.filename = str(file.parent)
            raise cause from error
        raise OSError(errno.EIO, "Input/output error", str(file.parent)) from error


def _write(sink: Any, values: npt.NDArray[np.uint8], part: Part) -> None:
    area = needs("rasterio.windows", "geo").Window(part.keep.left, part.keep.top, part.keep.width, part.keep.height)
    top, left = part.keep.top - part.read.top, part.keep.left - part.read.left
    with _writing(Path(sink.name)):
        sink.write(values[top : top + part.keep.height, left : left + part.keep.width], 1, window=area)
